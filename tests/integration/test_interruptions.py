"""Invariance of images to shards, batches, workers, order and interruptions: none lost, none twice."""

import contextlib
import dataclasses
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bob import pipeline
from bob.core.settings import Run
from bob.core.types import Receipt, Unit
from bob.diffusion import sampling
from bob.diffusion.image_generator import ImageGenerator
from bob.steps import workers
from bob.store import Store, parquet
from bob.store.images import read_images

MOMENTS = {"draw": sampling, "write": parquet, "fsync": os, "replace": os}
"""Where a process may be killed: function -> its module. The first is called for every batch, the others for files."""


class Killed(BaseException):
    """The process is gone: nothing it would have done after this is done."""


class Drawn(Exception):
    """All images are there; training classifiers on them is not of interest here."""


@pytest.fixture(scope="module")
def tuned(base: Run, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The adapters of two seeds and nothing else; not to be changed."""
    artefacts = Store(str(tmp_path_factory.mktemp("tuned")))
    with pytest.raises(Drawn):
        execute(seeds(base), artefacts, stop_before="generate")
    shutil.rmtree(Path(artefacts.root, "images"))  # the requests, in units of another size
    return artefacts


@pytest.fixture(scope="module")
def painters() -> list[ImageGenerator]:
    """Models that outlive the examples, in float64: there, no order of summation moves a pixel by a level."""
    made = [ImageGenerator("cpu") for _ in range(3)]
    for painter in made:
        painter._dtype = torch.float64
    return made


@pytest.fixture(scope="module")
def wanted(base: Run, tuned: Store, painters: list[ImageGenerator]) -> dict[int, set[tuple[str, str]]]:
    """seed -> the images of a run that is left alone."""
    with copied(tuned) as artefacts:
        return drawn(seeds(base), artefacts, lambda runs: execute(runs, artefacts, painters=painters[:1]))


def seeds(base: Run, **changes: int) -> list[Run]:
    """Two runs, so two adapters to swap."""
    settings = dataclasses.replace(base.draw, **changes)
    return [dataclasses.replace(base, seed=seed, draw=settings) for seed in (0, 1)]


@contextlib.contextmanager
def copied(artefacts: Store) -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        yield Store(str(shutil.copytree(artefacts.root, Path(folder, "out"))))


def execute(
    runs: Sequence[Run],
    artefacts: Store,
    *,
    painters: Sequence[ImageGenerator] = (),
    order: int = 0,
    stop_before: str = "classify",
) -> None:
    """The pipeline as far as the images, its units dealt to painters in an order of their own."""

    def executor(step: str, units: Sequence[Unit], store: Store) -> Iterator[Receipt]:
        if step == stop_before:
            raise Drawn
        if step != "generate":
            yield from workers.inline("cpu")(step, units, store)
            return
        crew = [workers.GenerateWorker(store.root, device="cpu") for _ in painters]
        for worker, painter in zip(crew, painters, strict=True):
            worker._generator = painter
        for k, unit in enumerate(random.Random(order).sample(units, len(units))):
            yield crew[k % len(crew)](unit)

    pipeline.execute(runs, artefacts=artefacts, executor=executor, report=lambda step, todo, done, receipts: receipts)


def drawn(
    runs: Sequence[Run], artefacts: Store, make: Callable[[Sequence[Run]], None]
) -> dict[int, set[tuple[str, str]]]:
    """seed -> the (request_id, sha1) of its images, after `make` has made them."""
    with pytest.raises(Drawn):
        make(runs)
    found = {}
    for run in runs:
        (folder,) = {path.parent for path in Path(artefacts.root).glob(f"images/*-s{run.seed}-*/requests.parquet")}
        table = read_images(artefacts, str(folder.relative_to(artefacts.root)))
        assert len(table) == 3 * run.draw.per_class
        found[run.seed] = set(zip(*(table[name].to_pylist() for name in ("request_id", "sha1")), strict=True))
        assert len(found[run.seed]) == len(table)
    return found


@contextlib.contextmanager
def killed(moment: str, *, after: int, done: bool) -> Iterator[None]:
    """Ends the process within at the call of a function: before it or when it is done, with no time to clean up."""
    module, original, dead, calls = MOMENTS[moment], getattr(MOMENTS[moment], moment), False, 0

    def deadly(*arguments: Any, **named: Any) -> Any:
        nonlocal calls, dead
        calls += 1
        if calls > after and not done:
            dead = True
            raise Killed
        made = original(*arguments, **named)
        if calls > after:
            dead = True
            raise Killed
        return made

    def unlink(path: str, **where: Any) -> None:
        if not dead:
            remove(path, **where)

    remove = os.unlink
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(module, moment, deadly)
        patch.setattr(os, "unlink", unlink)
        yield


interruptions = st.tuples(st.sampled_from(sorted(MOMENTS)), st.integers(0, 8), st.booleans(), st.integers(0, 99))


@pytest.mark.timeout(300)
@settings(
    max_examples=12,
    phases=[Phase.generate],  # to look for the smallest failure takes minutes
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    unit=st.integers(1, 13),
    batch=st.integers(1, 7),
    crew=st.integers(1, 3),
    kills=st.lists(interruptions, max_size=4),
    order=st.integers(0, 99),
)
def test_the_images_do_not_depend_on_how_they_were_made(base, tuned, painters, wanted, unit, batch, crew, kills, order):
    runs = seeds(base, unit=unit, batch=batch)
    with copied(tuned) as artefacts:
        for moment, after, done, other in kills:
            with killed(moment, after=after, done=done), contextlib.suppress(Drawn):
                execute(runs, artefacts, painters=painters[:crew], order=other)
        made = drawn(runs, artefacts, lambda runs: execute(runs, artefacts, painters=painters[:crew], order=order))
    assert made == wanted
