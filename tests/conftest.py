"""Fixtures and settings of all tests: no telemetry, no downloads, no network, no progress bars."""

import os

os.environ.pop("BOB_MODELS", None)  # nobody's own weights
os.environ.update(
    {
        "DIFFUSERS_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "agg",
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "disabled",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_OFFLINE": "1",
    }
)

import dataclasses
import ipaddress
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded pictures of the tests are the tests' own; nobody's data sets are looked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOB_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("BOB_DATA", raising=False)
        yield


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """A connection to anything but this machine fails the test that opens it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))
        yield


def _guarded(connect: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(self: socket.socket, address: Any) -> Any:
        # A datagram socket's connect sends nothing; Ray learns its own address by one.
        remote = self.family in (socket.AF_INET, socket.AF_INET6) and self.type != socket.SOCK_DGRAM
        if remote and not _is_here(self.family, address[0]):
            # No Exception: a library that shrugs off a lost connection must not hide it.
            pytest.fail(f"tests use no network, but something connects to {address}")
        return connect(self, address)

    return guarded


def _is_here(family: int, host: str) -> bool:
    try:
        if host == "localhost" or ipaddress.ip_address(host).is_loopback:
            return True
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))  # only an address of this machine can be bound to
    except (OSError, ValueError):
        return False
    return True


@pytest.fixture(scope="session")
def untrained_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2.5-VL of skyworld's size with random weights, in the files of a real one; not to be changed."""
    import torch

    from bob.skyworld import qwen

    folder = tmp_path_factory.mktemp("qwen")
    processor = qwen.processor()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        qwen.model(processor.tokenizer).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def untrained_sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion of skyworld's size with random weights, in the files of a real one; not to be changed."""
    import torch
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    from bob.skyworld import models

    folder = tmp_path_factory.mktemp("sd")
    tokenizer = models.clip_tokenizer()
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline: Any = StableDiffusionPipeline
        pipeline(
            vae=models.vae(),
            text_encoder=models.text_encoder(tokenizer),
            tokenizer=tokenizer,
            unet=models.unet(),
            scheduler=PNDMScheduler(**schedule, skip_prk_steps=True),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def untrained_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for `$BOB_MODELS` with a CLIP of skyworld's size and random weights, as filters want it."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    from bob.skyworld import models

    folder, tokenizer = tmp_path_factory.mktemp("models"), models.clip_tokenizer()
    layers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": models.TOKENS, **layers}
    text |= {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    vision = {"image_size": models.SIDE, "patch_size": 8, **layers}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(
            folder / "clip_vit_b32"
        )
    tokenizer.save_pretrained(folder / "clip_vit_b32")
    return folder


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`s3://NAME` of an empty bucket on a server of our own, to which the environment leads."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    nobody = str(tmp_path_factory.getbasetemp() / "nobody")
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": nobody,
        "AWS_SHARED_CREDENTIALS_FILE": nobody,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    name = f"bob-{uuid.uuid4().hex}"  # connections are kept by name, also to the servers of earlier modules
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in settings.items():
            patch.setenv(variable, value)
        boto3.client("s3").create_bucket(Bucket=name)
        yield f"s3://{name}"
    server.stop()


@pytest.fixture(scope="session")
def base(untrained_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny run: a `bob.core.settings.Run`."""
    from tests import tiny

    return tiny.run(tiny.photos(tmp_path_factory.mktemp("photos")), untrained_sd)


@pytest.fixture(scope="session")
def finished(base: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The `bob.store.Store` of a tiny run of BOB, from captions to tables; not to be changed."""
    from bob import pipeline
    from bob.paper import tabulate
    from bob.steps import workers
    from bob.store import Store

    artefacts = Store(str(tmp_path_factory.mktemp("finished")))
    run = dataclasses.replace(base, method="bob", captioner="qwen_vl:skyworld")
    outcomes = pipeline.execute(
        [run], artefacts=artefacts, executor=workers.inline("cpu"), report=lambda step, todo, done, receipts: receipts
    )
    tabulate.write(outcomes, artefacts, name="tiny")
    return artefacts


@pytest.fixture
def artefacts(finished: Any, tmp_path: Path) -> Any:
    """A copy of `finished`, to be changed."""
    return dataclasses.replace(finished, root=str(shutil.copytree(finished.root, tmp_path / "out")))


@pytest.fixture
def local(tmp_path: Path) -> Any:
    """An empty `bob.store.Store` on a disk."""
    from bob.store import Store

    return Store(str(tmp_path / "out"))


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, local: Any) -> Any:
    """An empty `bob.store.Store`: what holds on a disk holds on S3."""
    if request.param == "local":
        return local
    return dataclasses.replace(local, root=f"{request.getfixturevalue('bucket')}/{uuid.uuid4().hex}/out")
