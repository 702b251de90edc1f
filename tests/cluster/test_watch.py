"""Monitoring of a job: training curves for TensorBoard, and counters for Prometheus."""

import math
import re
import sys
import time
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c

from bob import cli, cluster, pipeline
from bob.cluster.curves import Curves
from bob.commands import console, verify
from bob.core.settings import Point, SweepSettings
from bob.core.types import Unit
from bob.steps.classify import Coordinates, SweepWork
from bob.store import Store, key

EVENT: Any = vars(event_pb2)["Event"]


@pytest.fixture(scope="module")
def watched(base, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A tiny run on Ray, its curves for TensorBoard. Ray lives as long as the tests of this file."""
    import functools

    import ray  # late: conftest has set its environment by now

    artefacts = Store(str(tmp_path_factory.mktemp("watched")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_metrics_report_interval_ms", "500")
        executor = functools.partial(cluster.execute, log="tensorboard")
        try:
            pipeline.execute([base], artefacts=artefacts, executor=executor, report=console.report)
            yield artefacts
        finally:
            ray.shutdown()


def events(folder: Path) -> dict[str, dict[int, float]]:
    """Name -> step -> value, of the one event file of a folder: records of length, its sum, an event, its sum."""
    (file,) = folder.glob("events.out.tfevents.*")
    data, found = file.read_bytes(), dict[str, dict[int, float]]()
    while data:
        length = int.from_bytes(data[:8], "little")
        record = data[12 : 12 + length]
        assert int.from_bytes(data[12 + length : 16 + length], "little") == masked_crc32c(record)
        data = data[16 + length :]
        event = EVENT.FromString(record)
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(400)
def test_tensorboard_is_given_the_numbers_of_the_tables(watched):
    logs = Path(watched.root, "logs/tensorboard")
    finals = [path for path in watched.listing() if path.endswith("/final.parquet")]
    swept = [path for path in watched.listing() if re.search(r"sweep-\d+\.parquet", path)]
    assert len(finals) == 1
    assert len(swept) == 2
    for path in finals + swept:
        drawn = events(logs / path.removesuffix(".parquet"))
        rows = watched.read_table(path).to_pylist()
        for split, metric in (("train", "loss"), ("val", "accuracy"), ("val", "loss")):
            kept = {row["epoch"]: row["value"] for row in rows if (row["split"], row["metric"]) == (split, metric)}
            assert drawn[f"ray/tune/{split}_{metric}"] == pytest.approx(kept)
    assert set(drawn["ray/tune/val_loss"]) == {1}


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(400)
def test_tensorboard_is_given_the_losses_of_a_fine_tune_to_its_last_step(watched):
    (tuned,) = Path(watched.root, "logs/tensorboard/adapters").iterdir()
    losses = events(tuned)["ray/tune/train_loss"]
    assert sorted(losses) == [1, 2, 3, 4]
    assert all(loss > 0 for loss in losses.values())


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(400)
def test_curves_are_not_taken_for_something_wrong(watched):
    found = verify.verify(watched)
    assert found.problems == found.foreign == ()
    assert any(path.startswith("logs/") for path in found.passing)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(400)
def test_a_node_shows_what_was_done_to_prometheus(watched):
    import ray

    (port,) = {node["MetricsExportPort"] for node in ray.nodes()}
    end, wanted = time.monotonic() + 60, {"generate": 12.0, "finetune": 4.0, "sweep": 2.0, "final": 2.0}
    done, spent = dict[str, float](), dict[str, float]()
    while done != wanted and time.monotonic() < end:
        time.sleep(0.5)
        text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
        done, spent = scraped(text, "ray_bob_done_total", "step"), scraped(text, "ray_bob_seconds_total", "lap")
    assert done == wanted
    assert set(spent) == {"load", "encode", "denoise", "decode", "write", "work"}
    assert scraped(text, "ray_bob_unit_seconds_count", "step") == {"generate": 3, "finetune": 1, "sweep": 2, "final": 1}


def scraped(text: str, name: str, label: str) -> dict[str, float]:
    """Label -> sum over processes."""
    sums: dict[str, float] = {}
    for labels, value in re.findall(rf"^{name}{{(.*)}} (\S+)$", text, re.MULTILINE):
        (of,) = re.findall(rf'\b{label}="([^"]*)"', labels)
        sums[of] = sums.get(of, 0.0) + float(value)
    return sums


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--log", "mlflow", "--out", "{out}"], r"pip install 'beyond-objects\[mlflow\]'"),
        (["--log", "wandb", "--out", "{out}"], r"pip install 'beyond-objects\[wandb\]'"),
        (["--log", "tensorboard", "--out", "s3://bucket/x"], "writes to a folder, and s3://bucket/x is none: choose"),
        (["--log", "tensorboard", "--inline", "--out", "{out}"], "--inline does everything in this process"),
    ],
)
def test_curves_that_cannot_be_written_are_refused_at_once(arguments, said, tmp_path, capsys, monkeypatch):
    from importlib import util

    known = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name in ("mlflow", "wandb") else known(name))
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "smoke", *(argument.format(out=tmp_path / "out") for argument in arguments)])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert re.search(said, told)
    assert told.count("\n") == 1
    assert not list(tmp_path.iterdir())


COORDINATES = Coordinates(
    dataset="skyworld",
    descriptor="aircraft",
    shots=5,
    method="real_only",
    checkpoint="sd21",
    backbone="resnet_mini",
    seed=0,
)
SWEEP = Unit(
    step="classify",
    target="results/a/sweep-000.parquet",
    label="a sweep",
    size=2,
    work=SweepWork(
        run="0123456789abcdef",
        inputs=[],
        coordinates=COORDINATES,
        dataset="skyworld",
        split="shots/a.parquet",
        images="",
        copies=1,
        mixup=True,
        classes=3,
        groups={},
        cost=1.0,
        sweep=SweepSettings(),
        point=Point(lr=0.1, weight_decay=0.0, lam=1.0),
    ),
)
SETTINGS = {
    "phase": "sweep",
    "dataset": "skyworld",
    "descriptor": "aircraft",
    "shots": 5,
    "method": "real_only",
    "checkpoint": "sd21",
    "backbone": "resnet_mini",
    "seed": 0,
    "lr": 0.1,
    "weight_decay": 0.0,
    "lam": 1.0,
    "layer_decay": 1.0,
}


def drawn(kind: str, folder: Path) -> None:
    """Two epochs of one training, the second of them twice, as after the loss of a process."""
    curves = Curves(kind, Store(str(folder)))
    curves.add(SWEEP, 1, {"train_loss": 3.0, "val_loss": math.nan})
    for loss in (2.0, 9.0):
        curves.add(SWEEP, 2, {"train_loss": loss})
    curves.end(SWEEP)
    curves.close()


def test_tensorboard_is_given_a_step_once_and_the_settings(tmp_path):
    drawn("tensorboard", tmp_path)
    folder = tmp_path / "logs/tensorboard/results/a/sweep-000"
    assert events(folder) == {"ray/tune/train_loss": {1: 3.0, 2: 2.0}}
    (file,) = folder.iterdir()
    assert all(name.encode() in file.read_bytes() for name in SETTINGS)


class Recorder:
    """Stands in for a tracker's package: notes calls, and answers by what it was made with."""

    def __init__(self, **answers: Any) -> None:
        self.answers, self.calls = answers, list[tuple[str, tuple, dict]]()
        self.__spec__ = ModuleSpec("tracker", None)

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            self.calls.append((name, arguments, named))
            return self.answers.get(name)

        return call


def test_mlflow_is_given_a_step_once_and_the_settings(tmp_path, monkeypatch):
    client = Recorder(create_experiment="7", create_run=SimpleNamespace(info=SimpleNamespace(run_id="r")))
    package = Recorder(MlflowClient=client)
    monkeypatch.setitem(sys.modules, "mlflow", package)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    drawn("mlflow", tmp_path)
    assert package.calls == [("MlflowClient", (), {"tracking_uri": f"sqlite:///{tmp_path}/logs/mlflow/mlflow.db"})]
    assert [arguments for name, arguments, _ in client.calls if name == "create_run"] == [("7",)]
    assert dict(arguments[1:] for name, arguments, _ in client.calls if name == "log_param") == SETTINGS
    losses = [(named["step"], arguments[2]) for _, arguments, named in client.calls if "train_loss" in arguments]
    assert losses == [(1, 3.0), (2, 2.0)]
    assert client.calls[-1] == ("set_terminated", ("r",), {"status": "FINISHED"})


def test_wandb_is_given_a_step_once_and_the_settings(tmp_path, monkeypatch):
    run = Recorder()
    package = Recorder(login=True, init=run)
    monkeypatch.setitem(sys.modules, "wandb", package)
    drawn("wandb", tmp_path)
    (named,) = (named for name, _, named in package.calls if name == "init")
    assert (named["id"], named["group"], named["project"]) == (key(SWEEP.target), "classify", "bob")
    assert named["config"].items() >= SETTINGS.items()
    losses = [(named["step"], values["train_loss"]) for name, (values,), named in run.calls[:-1]]
    assert losses == [(1, 3.0), (2, 2.0)]
    assert run.calls[-1] == ("finish", (), {})


def test_wandb_without_a_key_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", Recorder(login=False))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with pytest.raises(ValueError, match="--log wandb cannot be used: no API key found"):
        Curves("wandb", Store(str(tmp_path)))


def test_a_tracker_that_fails_is_told_of_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", Recorder(login=True, init=SimpleNamespace()))
    drawn("wandb", tmp_path)
    assert capsys.readouterr().out.count("--log wandb fails, so curves end here: ") == 1
