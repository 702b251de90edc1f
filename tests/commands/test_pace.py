"""Seconds of a unit by kind of work: measured without overlap, stored with the unit, summed by `bob status`."""

import contextlib
import os
import time

import pytest

from bob import pipeline
from bob.commands import pace
from bob.core.timing import Stopwatch
from bob.core.types import Request
from bob.diffusion.image_generator import ImageGenerator
from bob.steps import finetune, workers

ENDS = (".parquet", "manifest.json")
GENERATE = {"load", "encode", "denoise", "decode", "write"}


def test_each_moment_belongs_to_the_innermost_lap():
    begun = time.monotonic() - 5
    times = Stopwatch(begun=begun)
    with times("outer"):
        time.sleep(0.02)
        with contextlib.suppress(KeyError), times("inner"):
            time.sleep(0.05)
            raise KeyError
        time.sleep(0.02)
    times.around("write", time.sleep)(0.01)
    noted = times.noted()
    assert list(noted["times"]) == ["load", "outer", "inner", "write"]
    assert noted["times"]["load"] >= 5
    assert 0.04 <= noted["times"]["outer"] < noted["times"]["inner"] + 0.04
    assert noted["times"]["inner"] >= 0.05
    assert noted["times"]["write"] >= 0.01
    assert noted["seconds"] == pytest.approx(sum(noted["times"].values()), abs=1e-6)
    assert 0 <= time.monotonic() - begun - noted["seconds"] < 0.1
    assert noted["process"] == os.getpid()


def test_every_unit_of_a_run_notes_its_laps(finished):
    found = {path: finished.manifest(path) for path in finished.listing() if path.endswith(ENDS)}
    laps = {path: set(manifest["times"]) for path, manifest in found.items() if "times" in manifest}
    of = {top: [names for path, names in laps.items() if path.startswith(top)] for top in ("capt", "adap", "resu")}
    assert of == {"capt": [{"load", "work", "write"}] * 2, "adap": of["adap"], "resu": [{"load", "work", "write"}] * 3}
    assert of["adap"] == [{"load", "work", "write"}]
    shards = [path for path in found if "/part-" in path]
    assert len(shards) == 3
    for path in shards:
        assert laps[path] == GENERATE
        assert found[path]["seconds"] == pytest.approx(sum(found[path]["times"].values()), abs=0.01)
        assert all(seconds >= 0 for seconds in found[path]["times"].values())
    # 12 images in units of 5, 5 and 2, in batches of 3
    assert sorted(found[path]["occupancy"] for path in shards) == pytest.approx([2 / 3, 5 / 6, 5 / 6])


def test_a_receipt_has_the_writing_too(base, local):
    cell = pipeline.split(base, local)
    unit = finetune.unit(cell)
    assert unit is not None
    receipt = workers.FinetuneWorker(local.root, device="cpu")(unit)
    noted = local.manifest(unit.target)["times"]
    assert receipt.times.keys() == noted.keys() == {"load", "work", "write"}
    assert receipt.times["write"] >= noted["write"]
    assert receipt.seconds == sum(receipt.times.values())


def test_texts_and_sources_are_encoded_under_their_own_name(untrained_sd):
    """Of both kinds of request, and as before when the unit is over; a batch that shrinks fills less."""
    from PIL import Image

    painter = ImageGenerator("cpu")
    painter.use(f"path:{untrained_sd}", "", dict, "x", lambda _: Image.new("RGB", (32, 32), (200, 30, 60)))
    fixed = {"class_id": 0, "prompt": "a", "negative_prompt": "", "guidance": 1.0, "steps": 2, "scheduler": "default"}
    fixed |= {"label_ids": (0,), "label_weights": (1.0,)}
    for kind, more in (("text2img", {}), ("img2img", {"source_ids": ("x",), "strength": 1.0})):
        asked = [Request(request_id=f"{k}", index=k, seed=k, kind=kind, **fixed, **more) for k in range(3)]
        painter.times = Stopwatch()
        rows, rejected = painter.draw(asked, batch=2)
        assert len(rows) + len(rejected) == 3
        assert painter.times.times().keys() == GENERATE
        assert painter.times.switch("load") == "load"
        assert painter.occupancy == 3 / 4


def test_a_pace_is_that_of_all_its_units():
    def unit(process: int, seconds: float, **more: object) -> tuple[int, dict[str, object]]:
        laps = {"load": seconds / 4, "work": seconds * 3 / 4}
        return 10, {"host": "h", "process": process, "seconds": seconds, "times": laps} | more

    some = [unit(1, 2.0, occupancy=1.0), unit(1, 2.0, occupancy=0.5), unit(2, 4.0), (10, {"host": "h", "seconds": 2.0})]
    found = pace.summarise(some)
    assert found == pace.summarise(some[::-1])
    assert found.rate == 4
    assert found.workers == (2.5, 5, 5)
    assert found.times == {"work": 0.75, "load": 0.25}
    assert list(found.times) == ["work", "load"]
    assert found.occupancy == pytest.approx(20 / 30)
    told = "75 % work, 25 % load; batches 67 % full; 3 workers, 2.5 to 5 images/s each"
    assert found.words("images") == told
    assert pace.summarise([]).words("images") == ""
    assert pace.summarise([]).rate is None
