"""Faults planted into the package, of a kind that no run on a CPU notices: each fails a check on the pretended GPU."""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from bob.backbones import _augment
from bob.captioners import _qwen_vl
from bob.classifier import loss
from bob.classifier.embedder import Embedder
from bob.classifier.pictures import Pictures
from bob.classifier.trainer import Trainer
from bob.diffusion import circle, sampling, training
from bob.diffusion.clip_filter import ClipScorer
from bob.diffusion.image_generator import ImageGenerator
from tests.devices import actions, checks
from tests.devices.pretended_gpu import PretendedGpu


def drawing(gpu: PretendedGpu) -> None:
    checks.drawing(gpu, "text2img")


def training_minis(gpu: PretendedGpu) -> None:
    checks.training(gpu, "resnet_mini", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A text in a function's source, and what takes its place."""

    where: Any
    """Module or class of the function."""
    function: str
    old: str
    new: str
    check: Callable[[PretendedGpu], None]
    """Fails because of the fault."""
    words: str
    """In the message of the failure."""


FAULTS = {
    "targets that stay on the CPU": Fault(
        where=Pictures,
        function="__init__",
        old="send(torch.cat([real, synthetic]), device)",
        new="torch.cat([real, synthetic])",
        check=training_minis,
        words="same device",
    ),
    "numbers of an augmentation that stay on the CPU": Fault(
        where=_augment,
        function="augment",
        old="send(host, images.device)",
        new="host",
        check=training_minis,
        words="found cuda:0 and cpu",
    ),
    "scores without a device": Fault(
        where=ClipScorer,
        function="scores",
        old=", device=self._device",
        new="",
        check=checks.scoring,
        words="found cuda:0 and cpu",
    ),
    "features without .cpu()": Fault(
        where=Embedder,
        function="_features",
        old=".float().cpu()",
        new=".float()",
        check=lambda gpu: checks.embedding(gpu, "resnet_mini"),
        words="to numpy",
    ),
    ".cpu() in the classifier's loss": Fault(
        where=loss,
        function="_cross_entropy",
        old=".sum()",
        new=".sum().cpu()",
        check=training_minis,
        words=r"waits for the GPU: .*cpu at .* in _cross_entropy",
    ),
    ".cpu() in the fine-tune's loss": Fault(
        where=training.Loss,
        function="__call__",
        old="target.float())",
        new="target.float()).cpu()",
        check=lambda gpu: checks.finetune(gpu, "LoRA"),
        words=r"waits for the GPU: \d+ x cpu at .* in Loss.__call__",
    ),
    ".item() in an epoch": Fault(
        where=Trainer,
        function="learn",
        old="batch_loss.detach()",
        new="batch_loss.item()",
        check=training_minis,
        words=r"waits for the GPU: .*_local_scalar_dense at .* in Trainer.learn",
    ),
    "timesteps on the GPU": Fault(
        where=sampling,
        function="_scheduler",
        old="set_timesteps(steps)",
        new="set_timesteps(steps, device=device)",
        check=drawing,
        words=r"waits for the GPU: \d+ x _local_scalar_dense at .* in _text2img by way of diffusers/schedulers/",
    ),
    "float32 noise in float16 drawing": Fault(
        where=sampling,
        function="initial_noise",
        old=".to(pipeline.device, pipeline.unet.dtype)",
        new=".to(pipeline.device, torch.float32)",
        check=drawing,
        words="same dtype",
    ),
    "an inversion's pixels without a dtype": Fault(
        where=circle,
        function="invert",
        old=".to(pipeline.device, pipeline.vae.dtype)",
        new=".to(pipeline.device)",
        check=lambda gpu: checks.drawing(gpu, "circle"),
        words="should be the same|same dtype",
    ),
    "a generator without its dtype": Fault(
        where=ImageGenerator,
        function="__init__",
        old='torch.float16 if self._device.type == "cuda" else torch.float32',
        new="torch.float32",
        check=drawing,
        words="on_gpu",
    ),
    "pictures without .to(device)": Fault(
        where=_qwen_vl.QwenVL,
        function="_inputs",
        old="for picture in prepared]).to(device)",
        new="for picture in prepared])",
        check=checks.captions,
        words="found cuda:0 and cpu",
    ),
    "a captioner without its dtype": Fault(
        where=_qwen_vl,
        function="load",
        old='dtype=torch.bfloat16 if device.startswith("cuda") else torch.float32,',
        new="dtype=torch.float32,",
        check=checks.captions,
        words="bfloat16",
    ),
}


def plant(patch: pytest.MonkeyPatch, fault: Fault) -> None:
    """Replaces the function by one with the fault."""
    function = inspect.unwrap(getattr(fault.where, fault.function))
    source = textwrap.dedent(inspect.getsource(function))
    assert fault.old in source, f"{fault.function} no longer has {fault.old!r}: plant the fault elsewhere"
    made: dict[str, Any] = {}
    # padded, so that its lines keep their numbers
    padding = "\n" * (function.__code__.co_firstlineno - 1)
    code = compile(padding + source.replace(fault.old, fault.new), inspect.getfile(function), "exec", dont_inherit=True)
    exec(code, function.__globals__, made)
    faulty = inspect.unwrap(made[fault.function])
    faulty.__code__ = faulty.__code__.replace(co_qualname=function.__qualname__)
    patch.setattr(fault.where, fault.function, made[fault.function])


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(gpu, monkeypatch, name):
    fault = FAULTS[name]
    plant(monkeypatch, fault)
    actions.ready.cache_clear()  # made without the fault
    try:
        with pytest.raises((AssertionError, RuntimeError, TypeError), match=fault.words) as found:
            fault.check(gpu)
    finally:
        actions.ready.cache_clear()
    print(f"{name}: {str(found.value).splitlines()[0]}")
