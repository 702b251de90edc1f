"""Outputs of an experiment: a table, a figure, a custom text, statements about tables, or several of these."""

import dataclasses
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bob import datasets, store
from bob.core.settings import Run
from bob.core.types import Outcome, Unit
from bob.paper import claims, layouts, render, tabulate
from bob.paper.layouts import Layout

__all__ = ["Claims", "Combined", "Custom", "Figure", "Output", "Runs", "Table"]

Runs = Callable[[Sequence[int]], list[Run]]
"""Seeds -> runs, one set for each seed."""


@dataclass(frozen=True)
class Output:
    """Base class of the outputs: step 5 of an experiment."""

    @property
    def ends(self) -> str:
        """The last step that the output needs."""
        return "classify"

    def units(self, outcomes: Sequence[Outcome], artefacts: store.Store) -> list[Unit]:
        """Returns units of the measurements that the output needs beyond the experiment's runs."""
        return []

    def show(self, outcomes: Sequence[Outcome], artefacts: store.Store, name: str) -> None:
        """Writes the output's files, named `name`, with missing results marked, and prints the output.

        Args:
            outcomes: outcomes of the experiment's runs, in their order.
            artefacts: store of the results and of the files.
            name: name of the experiment.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Table(Output):
    """A table of accuracies."""

    layout: Layout = layouts.PLAIN

    def show(self, outcomes: Sequence[Outcome], artefacts: store.Store, name: str) -> None:
        """See `Output`."""
        render.show(tabulate.write(outcomes, artefacts, name=name, layout=self.layout), self.layout)


@dataclass(frozen=True)
class Custom(Output):
    """The output of a function that writes its files and returns Markdown."""

    present: Callable[..., str]

    def show(self, outcomes: Sequence[Outcome], artefacts: store.Store, name: str) -> None:
        """See `Output`."""
        print(self.present(outcomes, artefacts, name=name))


@dataclass(frozen=True)
class Figure(Output):
    """A figure or a table of measures, from a module of `bob/paper/figures/`."""

    name: str
    """Name of the module."""
    upto: str = "generate"
    """The last step that the module needs."""
    class_name: str = ""
    """Figure 3: the class to show; empty: the module's own choice."""

    def showing(self, class_name: str, runs: Sequence[Run]) -> "Figure":
        """Returns this figure of another class; its files are named after the class too.

        Raises:
            ValueError: if the figure is not of one class, or the data set has no such class.
        """
        if self.name != "figure3":
            raise ValueError(f"{self.name} shows all classes, so --figure-class is not for it: leave it out")
        self._module.class_id(datasets.load(runs[0].dataset, runs[0].descriptor), class_name)
        return dataclasses.replace(self, class_name=class_name)

    @property
    def ends(self) -> str:
        """See `Output`."""
        return self.upto

    def units(self, outcomes: Sequence[Outcome], artefacts: store.Store) -> list[Unit]:
        """See `Output`."""
        return self._module.units(outcomes, artefacts)

    def show(self, outcomes: Sequence[Outcome], artefacts: store.Store, name: str) -> None:
        """See `Output`."""
        if self._is_whole(outcomes, artefacts):
            chosen = {"class_name": self.class_name} if self.class_name else {}
            name = f"{name}-{store.slug(self.class_name)}" if chosen else name
            print(self._module.draw(outcomes, artefacts, name=name, **chosen))
        else:
            print(f"{name} is not drawn: some of its runs or measures are missing")

    def _is_whole(self, outcomes: Sequence[Outcome], artefacts: store.Store) -> bool:
        reached = [outcome.final if self.upto == "classify" else outcome.images for outcome in outcomes]
        return all(reached) and all(artefacts.exists(unit.target) for unit in self.units(outcomes, artefacts))

    @property
    def _module(self) -> Any:
        return importlib.import_module(f"bob.paper.figures.{self.name}")


@dataclass(frozen=True)
class Claims(Output):
    """The paper's statements about several tables; the experiment's runs are those of the tables, concatenated."""

    tables: Mapping[str, tuple[Runs, Layout]]
    """Name of a table in `statements.STATEMENTS` -> its runs and layout."""

    def show(self, outcomes: Sequence[Outcome], artefacts: store.Store, name: str) -> None:
        """See `Output`."""
        slices = _slices({table: runs for table, (runs, _) in self.tables.items()}, outcomes)
        collected = {
            table: tabulate.collect(part, artefacts, name=table, layout=self.tables[table][1]) for table, part in slices
        }
        rows = claims.rows(collected)
        text = claims.markdown(rows)
        artefacts.write_table(f"tables/{name}.parquet", rows, store.provenance([o.run for o in outcomes]))
        artefacts.write(f"tables/{name}.md", text.encode())
        print(text)


@dataclass(frozen=True)
class Combined(Output):
    """The outputs of several experiments, whose runs are concatenated."""

    parts: Mapping[str, tuple[Runs, Output]]
    """Name of an experiment -> its runs and output."""

    def units(self, outcomes: Sequence[Outcome], artefacts: store.Store) -> list[Unit]:
        """See `Output`."""
        return [unit for name, part in self._slices(outcomes) for unit in self.parts[name][1].units(part, artefacts)]

    def show(self, outcomes: Sequence[Outcome], artefacts: store.Store, name: str) -> None:
        """See `Output`; each part's files have its own name after the prefix of `name` (`smoke_` of `smoke_paper`)."""
        prefix = name.rpartition("_")[0]
        for part_name, part in self._slices(outcomes):
            print(f"\n{part_name}")
            self.parts[part_name][1].show(part, artefacts, f"{prefix}_{part_name}" if prefix else part_name)

    def _slices(self, outcomes: Sequence[Outcome]) -> Iterator[tuple[str, Sequence[Outcome]]]:
        return _slices({name: runs for name, (runs, _) in self.parts.items()}, outcomes)


def _slices(parts: Mapping[str, Runs], outcomes: Sequence[Outcome]) -> Iterator[tuple[str, Sequence[Outcome]]]:
    """Yields the name of each part and the outcomes of its runs."""
    seeds, start = tuple(dict.fromkeys(outcome.run.seed for outcome in outcomes)), 0
    for name, runs in parts.items():
        count = len(runs(seeds))
        yield name, outcomes[start : start + count]
        start += count
    assert start == len(outcomes), (start, len(outcomes))
