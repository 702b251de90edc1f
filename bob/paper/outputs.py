"""What an experiment makes of its runs: a table, a figure, statements, or several of these."""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bob import store
from bob.core.settings import Run
from bob.core.types import Outcome, Unit
from bob.paper import claims, layouts, render, tabulate
from bob.paper.layouts import Layout

__all__ = ["Claims", "Custom", "Figure", "Parts", "Runs", "Show", "Table"]

Runs = Callable[[Sequence[int]], list[Run]]
"""Seeds -> runs, one set for each seed."""


@dataclass(frozen=True)
class Show:
    """Step 5 of an experiment."""

    @property
    def ends(self) -> str:
        """The last step whose outcome it needs."""
        return "classify"

    def units(self, outcomes: Sequence[Outcome], artefacts: store.Store) -> list[Unit]:
        """What has to be measured before it can be shown, beyond what the runs are."""
        return []

    def show(self, outcomes: Sequence[Outcome], artefacts: store.Store, name: str) -> None:
        """Writes its files as `name`, with what is missing marked, and prints it.

        Args:
            outcomes: of the experiment's runs, in their order.
            artefacts: where it is kept.
            name: of the experiment.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Table(Show):
    """A table, and a picture of what was drawn."""

    layout: Layout = layouts.PLAIN

    def show(self, outcomes: Sequence[Outcome], artefacts: store.Store, name: str) -> None:
        """See `Show`."""
        render.show(tabulate.write(outcomes, artefacts, name=name, layout=self.layout), self.layout)


@dataclass(frozen=True)
class Custom(Show):
    """A function that writes something and returns it as Markdown."""

    present: Callable[..., str]

    def show(self, outcomes: Sequence[Outcome], artefacts: store.Store, name: str) -> None:
        """See `Show`."""
        print(self.present(outcomes, artefacts, name=name))


@dataclass(frozen=True)
class Figure(Show):
    """A file of `bob/paper/figures/`."""

    name: str
    upto: str = "generate"

    @property
    def ends(self) -> str:
        """See `Show`."""
        return self.upto

    def units(self, outcomes: Sequence[Outcome], artefacts: store.Store) -> list[Unit]:
        """See `Show`."""
        return self._module.units(outcomes, artefacts)

    def show(self, outcomes: Sequence[Outcome], artefacts: store.Store, name: str) -> None:
        """See `Show`."""
        if self._is_whole(outcomes, artefacts):
            print(self._module.draw(outcomes, artefacts, name=name))
        else:
            print(f"{name} is not drawn: some of its runs or measures are missing")

    def _is_whole(self, outcomes: Sequence[Outcome], artefacts: store.Store) -> bool:
        reached = [outcome.final if self.upto == "classify" else outcome.images for outcome in outcomes]
        return all(reached) and all(artefacts.exists(unit.target) for unit in self.units(outcomes, artefacts))

    @property
    def _module(self) -> Any:
        return importlib.import_module(f"bob.paper.figures.{self.name}")


@dataclass(frozen=True)
class Claims(Show):
    """The statements about several tables, whose runs stand one after another."""

    tables: Mapping[str, tuple[Runs, Layout]]
    """As `claims.CLAIMS` call them."""

    def show(self, outcomes: Sequence[Outcome], artefacts: store.Store, name: str) -> None:
        """See `Show`."""
        slices = _slices({table: runs for table, (runs, _) in self.tables.items()}, outcomes)
        collected = {
            table: tabulate.collect(some, artefacts, name=table, layout=self.tables[table][1]) for table, some in slices
        }
        found = claims.rows(collected)
        text = claims.markdown(found)
        artefacts.write_table(f"tables/{name}.parquet", found, store.provenance([o.run for o in outcomes]))
        artefacts.write(f"tables/{name}.md", text.encode())
        print(text)


@dataclass(frozen=True)
class Parts(Show):
    """Several experiments in one, whose runs stand one after another."""

    parts: Mapping[str, tuple[Runs, Show]]

    def units(self, outcomes: Sequence[Outcome], artefacts: store.Store) -> list[Unit]:
        """See `Show`."""
        return [unit for part, some in self._slices(outcomes) for unit in self.parts[part][1].units(some, artefacts)]

    def show(self, outcomes: Sequence[Outcome], artefacts: store.Store, name: str) -> None:
        """See `Show`; each part is called by its own name, with what stands before the last word of `name`."""
        before = name.rpartition("_")[0]
        for part, some in self._slices(outcomes):
            print(f"\n{part}")
            self.parts[part][1].show(some, artefacts, f"{before}_{part}" if before else part)

    def _slices(self, outcomes: Sequence[Outcome]) -> Iterator[tuple[str, Sequence[Outcome]]]:
        return _slices({part: runs for part, (runs, _) in self.parts.items()}, outcomes)


def _slices(parts: Mapping[str, Runs], outcomes: Sequence[Outcome]) -> Iterator[tuple[str, Sequence[Outcome]]]:
    """Name of a part -> the outcomes of its runs."""
    seeds, start = tuple(dict.fromkeys(outcome.run.seed for outcome in outcomes)), 0
    for name, runs in parts.items():
        count = len(runs(seeds))
        yield name, outcomes[start : start + count]
        start += count
    assert start == len(outcomes), (start, len(outcomes))
