"""Experiments that can be run by name: functions that return lists of `Run`, and the outputs made of the outcomes.

    bob run NAME --out OUT [--seeds 0 1 2]         bob plan NAME --cluster 8xH100 says what it costs

The paper's experiments need its data sets and weights (`bob doctor`). Each but table7, which runs nothing, has a twin
on skyworld, `skyworld_table1` ..., that needs neither and runs on a laptop.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from bob.core import registry
from bob.core.settings import Run
from bob.paper import layouts, outputs
from bob.paper.outputs import Output, Runs
from bob.paper.table7 import present
from bob.paper.twins import MINIS, at_epoch, mini, on_skyworld, tiny
from bob.steps.defaults import defaults

__all__ = ["EXPERIMENTS", "OUTPUTS", "load"]

ROWS = (
    ("real_only", "sd21"),
    *((method, "sd15") for method in ("diff_aug", "diff_gen", "diff_mix", "diff_ii", "bob")),
    *((method, "sd21") for method in ("real_guidance", "da_fusion", "datadream", "bob")),
)
"""Rows of Table 1: method, and the T2I checkpoint of the paper's comparison (sec. 4.1)."""
TAIL_ROWS = tuple(row for row in ROWS if row[0] not in ("diff_aug", "real_guidance", "da_fusion"))
"""Rows of Table 2."""
EPOCHS = (200, 400, 1000, 2000)
"""Epochs of Table 6: the last is the length of the fine-tune, the others are checkpoints of it."""
EXPERIMENTS: dict[str, Runs] = {}
"""Name of an experiment -> its runs."""
OUTPUTS: dict[str, Output] = {}
"""Name of an experiment -> output made of its runs' outcomes."""


def _experiment(output: Output) -> Callable[[Runs], Runs]:
    def register(runs: Runs) -> Runs:
        EXPERIMENTS[runs.__name__], OUTPUTS[runs.__name__] = runs, output
        return runs

    return register


def load(name: str, seeds: Sequence[int]) -> list[Run]:
    """Returns the runs of the experiment called `name`, one set for each seed.

    Raises:
        ValueError: if there is no such experiment; lists the known and the nearest names.
    """
    if name not in EXPERIMENTS:
        raise ValueError(registry.unknown("experiment", name, EXPERIMENTS))
    return EXPERIMENTS[name](seeds)


def _paper(method: str, checkpoint: str = "sd21", backbone: str = "resnet50", **fields: Any) -> Run:
    models = {"checkpoint": checkpoint, "backbone": backbone, "captioner": "qwen_vl:7b"}
    return dataclasses.replace(defaults(**models, method=method), **fields)


@_experiment(outputs.Table())
def skyworld(seeds: Sequence[int] = (0,)) -> list[Run]:
    """Real Only, DataDream and BOB on skyworld at 5 shots, confounding 0.8, with equal budgets.

    bob run skyworld --out out            about 5 minutes on 2 CPU cores
    """
    return [mini(method, seed=seed) for seed in seeds for method in ("real_only", "datadream", "bob")]


@_experiment(outputs.Table())
def baselines(seeds: Sequence[int] = (0,)) -> list[Run]:
    """All registered methods on skyworld, those of other packages too, with the settings of `skyworld`.

    bob run baselines --out out
    """
    return [mini(method, seed=seed) for seed in seeds for method in registry.names("method")]


@_experiment(outputs.Table())
def smoke(seeds: Sequence[int] = (0,)) -> list[Run]:
    """The three methods of `skyworld` with budgets so small that the numbers mean nothing: does it run?

    bob run smoke --out out               about a minute
    """
    return [tiny(run) for run in skyworld(seeds)]


@_experiment(outputs.Table(layouts.TABLE1))
def table1(seeds: Sequence[int] = (0,)) -> list[Run]:
    """Table 1: few-shot accuracy of three backbones on four data sets, ten rows of methods.

    bob run table1 --out s3://bucket/bob          450 GPU-hours on H100s by `bob plan`

    The paper: BOB is best in 18 of 24 settings (abstract); in 19 by its cells, by up to 7.33 points (`claims`).
    """
    return [
        _paper(method, checkpoint, backbone, dataset=dataset, shots=shots, seed=seed)
        for seed in seeds
        for backbone in MINIS
        for method, checkpoint in ROWS
        for shots in (5, 10)
        for dataset in ("aircraft", "cars", "cub", "pets")
    ]


@_experiment(outputs.Table(layouts.TABLE2))
def table2(seeds: Sequence[int] = (0,)) -> list[Run]:
    """Table 2: long-tail accuracy of ResNet-50 at imbalance factors 100, 50 and 10.

    bob run table2 --out s3://bucket/bob          212 GPU-hours on H100s

    The paper: BOB is best on CUB-LT at each factor (63.06 at 100; Diff-II 56.10), and on Flower-LT.
    """
    return [
        _paper(method, checkpoint, dataset=f"{dataset}:{factor}", seed=seed)
        for seed in seeds
        for method, checkpoint in TAIL_ROWS
        for dataset in ("cub_lt", "flower_lt")
        for factor in (100, 50, 10)
    ]


def _aircraft(method: str, checkpoint: str = "sd21", **fields: Any) -> Run:
    """Returns a run of the paper's analyses: 10 shots of Aircraft (sec. 4.4)."""
    return _paper(method, checkpoint, dataset="aircraft", shots=10, **fields)


@_experiment(outputs.Table(layouts.TABLE3))
def table3(seeds: Sequence[int] = (0,)) -> list[Run]:
    """Table 3: marginalisation none, class-level and data-set-level, without and with preservation.

    bob run table3 --out s3://bucket/bob          18.9 GPU-hours on H100s: six sets of images from two adapters

    The paper: 68.00 with neither, 73.78 with both on the whole data set, 64.38 at worst.
    """
    return [_aircraft(method, seed=seed) for seed in seeds for method in layouts.ABLATION.values()]


@_experiment(outputs.Table(layouts.TABLE6))
def table6(seeds: Sequence[int] = (0,)) -> list[Run]:
    """Table 6: DataDream and BOB fine-tuned for 200, 400, 1,000 and 2,000 epochs, checkpoints of one run.

    bob run table6 --out s3://bucket/bob          64.8 GPU-hours on H100s

    The paper: both are best at 1,000 (69.11 and 75.22), BOB ahead at each.
    """
    return [
        at_epoch(_aircraft(method, seed=seed), epochs, EPOCHS)
        for seed in seeds
        for epochs in EPOCHS
        for method in ("datadream", "bob")
    ]


def _on_aircraft(methods: Sequence[tuple[str, str]], seeds: Sequence[int]) -> list[Run]:
    return [_aircraft(method, checkpoint, seed=seed) for seed in seeds for method, checkpoint in methods]


@_experiment(outputs.Figure("figure3"))
def figure3(seeds: Sequence[int] = (0,)) -> list[Run]:
    """Figure 3: shots of one class beside images of it by Diff-II, DataDream and BOB; nothing is classified.

    bob run figure3 --out s3://bucket/bob          13.7 GPU-hours on H100s

    The paper: Diff-II's backgrounds are plain, DataDream's aircraft stand on the ground, BOB's contexts vary.
    """
    return _on_aircraft((("diff_ii", "sd15"), ("datadream", "sd21"), ("bob", "sd21")), seeds)


@_experiment(outputs.Figure("figure4"))
def figure4(seeds: Sequence[int] = (0,)) -> list[Run]:
    """Figure 4: density over the classes of the FID between generated and real images.

    bob run figure4 --out s3://bucket/bob          13.7 GPU-hours on H100s, the images of Figure 3

    The paper: modes at 26 (BOB), 31 (DataDream) and 37 (Diff-II). Compare the order, not the values: see
    `bob.paper.figures`.
    """
    return figure3(seeds)


@_experiment(outputs.Figure("figure5", upto="classify"))
def figure5(seeds: Sequence[int] = (0,)) -> list[Run]:
    """Figure 5: how well a captioner itself knows the classes, against the accuracy that BOB reaches with it.

    bob run figure5 --out s3://bucket/bob          14.0 GPU-hours on H100s

    GPT-4o needs OPENAI_API_KEY; any server with OpenAI's API will do.

    The paper: 73.78 with Qwen2.5-VL-7B, about as much with GPT-4o, which knows 80 % of the classes, 70.88 with the 3B.
    """
    captioners = ("qwen_vl:3b", "qwen_vl:7b", "openai_vision:gpt-4o")
    return [
        run
        for seed in seeds
        for run in (
            _aircraft("datadream", seed=seed),
            *(_aircraft("bob", captioner=captioner, seed=seed) for captioner in captioners),
        )
    ]


@_experiment(outputs.Figure("figure6"))
def figure6(seeds: Sequence[int] = (0,)) -> list[Run]:
    """Figure 6: histogram over the classes of DataDream's FID minus BOB's.

    bob run figure6 --out s3://bucket/bob          12.7 GPU-hours on H100s, two sets of Figure 3's images

    The paper: BOB's is lower in 91 of 100 classes, by more than 5 in 29.
    """
    return _on_aircraft((("datadream", "sd21"), ("bob", "sd21")), seeds)


@_experiment(outputs.Figure("per_class"))
def per_class(seeds: Sequence[int] = (0,)) -> list[Run]:
    """FID, KID, Vendi score, entropy of contexts and caption leakage of Figure 3's methods: a table, class by class.

    bob run per_class --out s3://bucket/bob          13.7 GPU-hours on H100s, the images of Figure 3

    The paper gives the FID alone, in Figures 4 and 6.
    """
    return figure3(seeds)


@_experiment(outputs.Custom(present))
def table7(seeds: Sequence[int] = (0,)) -> list[Run]:
    """Table 7: which breeds of Pets are classes of ImageNet, derived from the names of both; nothing is run.

    bob run table7 --out out

    The paper: 22 of 39. By names: 25 of 37.
    """
    return []


TABLES = {
    "table1": layouts.TABLE1,
    "table2": layouts.TABLE2,
    "table3": layouts.TABLE3,
    "table6": layouts.TABLE6,
}
"""Tables of `claims`, the paper's countable statements recomputed from its cells and from ours: name -> layout."""
PAPER = (*TABLES, "figure3", "figure4", "figure5", "figure6")
"""Experiments that `paper` combines."""
_TWINNED = (*PAPER, "per_class")
"""Experiments with twins on skyworld."""


def _add_changed(prefix: str, change: Callable[[Run], Run], words: str) -> None:
    """Registers `claims` and `paper` under a prefix, over the experiments of `_TWINNED` with their runs changed."""
    for name in _TWINNED if prefix else ():
        EXPERIMENTS[prefix + name], OUTPUTS[prefix + name] = _changed(EXPERIMENTS[name], change), OUTPUTS[name]
        EXPERIMENTS[prefix + name].__doc__ = f"{name}{words}."
    tables = {name: (EXPERIMENTS[prefix + name], layout) for name, layout in TABLES.items()}
    EXPERIMENTS[f"{prefix}claims"] = _joined([runs for runs, _ in tables.values()])
    OUTPUTS[f"{prefix}claims"] = outputs.Claims(tables)
    parts = {name: (EXPERIMENTS[prefix + name], OUTPUTS[prefix + name]) for name in (*PAPER, "claims")}
    EXPERIMENTS[f"{prefix}paper"] = _joined([runs for runs, _ in parts.values()])
    OUTPUTS[f"{prefix}paper"] = outputs.Combined(parts)
    EXPERIMENTS[f"{prefix}claims"].__doc__ = f"The paper's countable statements, from its cells and ours{words}."
    EXPERIMENTS[f"{prefix}paper"].__doc__ = f"All tables, figures and claims in one, shared parts made once{words}."


def _changed(runs: Runs, change: Callable[[Run], Run]) -> Runs:
    return lambda seeds: list(dict.fromkeys(change(run) for run in runs(seeds)))


def _joined(parts: Sequence[Runs]) -> Runs:
    return lambda seeds: [run for runs in parts for run in runs(seeds)]


_add_changed("", lambda run: run, "; 732 GPU-hours on H100s")
_add_changed("skyworld_", on_skyworld, ", on skyworld with mini models")
_add_changed("smoke_", lambda run: tiny(on_skyworld(run)), ", on skyworld with budgets that mean nothing")
