"""Layouts of the tables: the row and the columns of a run, and the paper's numbers for them."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

from bob import backbones, datasets, methods
from bob.core.settings import Run
from bob.paper import numbers

__all__ = [
    "ABLATION",
    "PLAIN",
    "SEPARATOR",
    "TABLE1",
    "TABLE2",
    "TABLE3",
    "TABLE6",
    "Layout",
    "Place",
    "marginalisation",
]

SEPARATOR = " / "
"""Separator of the parts of a row's name."""

ABLATION = {
    ("none", "without"): "datadream",  # the same procedure (sec. 4.4)
    ("none", "with"): "bob:marginalisation=none",
    ("class", "without"): "bob:preservation=off,marginalisation=class",
    ("class", "with"): "bob:marginalisation=class",
    ("dataset", "without"): "bob:preservation=off",
    ("dataset", "with"): "bob",
}
"""Cells of Table 3: marginalisation and preservation -> method with these switches."""

Place = tuple[str, str]
"""Names of a row and a column."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The shape of a table. The functions expect a run whose `dataset` has its name in the results, not a path."""

    heads: tuple[str, ...]
    """Headings of the parts of a row's name."""
    row: Callable[[Run], tuple[str, ...]]
    """Run -> parts of the row's name."""
    columns: Callable[[Run], Mapping[str, str]]
    """Run -> metric of the test split -> column that shows it."""
    rivals: Callable[[str, str], Hashable] = lambda row, column: column
    """(row, column) -> group of the cell: the best of a group is bold, the second best underlined."""
    printed: Callable[[], Mapping[Place, float]] = dict
    """Numbers in the paper's cells, in per cent."""
    dataset: str = ""
    """The data set of the paper's numbers, where rows and columns do not name it."""


def _version(run: Run) -> str:
    """Returns the version of Stable Diffusion as the paper writes it; empty for a method that draws no images."""
    if not methods.load(run.method).draws:
        return ""
    return {"sd15": "v1.5", "sd21": "v2.1"}.get(run.checkpoint, run.checkpoint)


def _backbone(run: Run) -> str:
    return backbones.load(run.backbone).title or run.backbone


def _methods(run: Run) -> tuple[str, ...]:
    return methods.title(run.method), _version(run)


def _settings(run: Run) -> dict[str, str]:
    """Columns of a run: few-shot the accuracy over images, on a long tail the class means of each group and of all."""
    if run.shots:
        return {"accuracy": f"{run.dataset} {run.shots}-shot"}
    name = datasets.title(run.dataset)
    groups = {f"accuracy_{group}": f"{name} {group}" for group in ("many", "medium", "few")}
    return {**groups, "accuracy_class_mean": f"{name} all"}


def _tail(run: Run) -> dict[str, str]:
    """Columns of a run in Table 2, which shows the groups at imbalance factor 100 alone."""
    groups = _settings(run)
    if run.dataset.endswith(":100"):
        return groups
    return {"accuracy_class_mean": groups["accuracy_class_mean"]}


def _switches(run: Run) -> tuple[str, str]:
    """Returns a run's marginalisation and preservation in Table 3."""
    return next(switches for switches, method in ABLATION.items() if method == run.method)


def marginalisation(name: str) -> str:
    """Returns the name of a row of Table 3."""
    return "without marginalisation" if name == "none" else f"{name}-level marginalisation"


def _within_backbone(row: str, column: str) -> Hashable:
    return row.partition(SEPARATOR)[0], column


def _table1() -> dict[Place, float]:
    return {
        (SEPARATOR.join((backbone, method, version)), f"{dataset} {shots}-shot"): value
        for (backbone, method, version, shots, dataset), value in numbers.cells("table1").items()
    }


def _table2() -> dict[Place, float]:
    return {
        (SEPARATOR.join((method, version)), f"{datasets.title(f'{dataset}:{factor}')} {group}"): value
        for (method, version, dataset, factor, group), value in numbers.cells("table2").items()
    }


def _table3() -> dict[Place, float]:
    return {
        (marginalisation(name), f"{preservation} preservation"): value
        for (name, preservation), value in numbers.cells("table3").items()
    }


def _table6() -> dict[Place, float]:
    return {(f"{epochs} epochs", method): value for (epochs, method), value in numbers.cells("table6").items()}


PLAIN = Layout(
    heads=("backbone", "method", "SD"),
    row=lambda run: (_backbone(run), *_methods(run)),
    columns=_settings,
    rivals=_within_backbone,
)
"""Layout of an experiment that is not a table of the paper."""
TABLE1 = Layout(heads=PLAIN.heads, row=PLAIN.row, columns=_settings, rivals=_within_backbone, printed=_table1)
"""Few-shot accuracy: backbone, method and version of Stable Diffusion against data set and shots."""
TABLE2 = Layout(heads=("method", "SD"), row=_methods, columns=_tail, printed=_table2)
"""Long-tail accuracy of ResNet-50."""
TABLE3 = Layout(
    heads=("",),
    row=lambda run: (marginalisation(_switches(run)[0]),),
    columns=lambda run: {"accuracy": f"{_switches(run)[1]} preservation"},
    rivals=lambda row, column: "all",
    printed=_table3,
    dataset="aircraft",
)
"""Marginalisation against preservation."""
TABLE6 = Layout(
    heads=("fine-tuned for",),
    row=lambda run: (f"{run.after or run.finetune.epochs} epochs",),
    columns=lambda run: {"accuracy": methods.title(run.method)},
    rivals=lambda row, column: row,
    printed=_table6,
    dataset="aircraft",
)
"""Epochs of the fine-tune against method."""
