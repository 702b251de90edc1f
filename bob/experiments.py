"""What can be run by name: functions that return lists of `Run`. A number in a table leads to one of these."""

import dataclasses
from collections.abc import Callable, Sequence

from bob import backbones, methods, registry
from bob.diffusion import checkpoints
from bob.settings import Run

__all__ = ["EXPERIMENTS", "baselines", "defaults", "load", "skyworld", "smoke"]


def defaults(*, checkpoint: str, backbone: str, captioner: str, method: str = "bob") -> Run:
    """A run with the settings that its T2I checkpoint, method and backbone are tuned, drawn and swept with."""
    known, chosen = checkpoints.settings(checkpoint), methods.load(method)
    finetune = (chosen.finetune_mini if known.mini else chosen.finetune) or known.finetune
    steps = min(chosen.steps, known.draw.steps)
    return Run(
        dataset="skyworld:0.8",
        method=method,
        checkpoint=checkpoint,
        captioner=captioner,
        backbone=backbone,
        finetune=finetune,
        draw=dataclasses.replace(known.draw, guidance=chosen.guidance, steps=steps),
        sweep=backbones.load(backbone).sweep,
    )


def skyworld(seeds: Sequence[int] = (0,)) -> list[Run]:
    """Real Only, DataDream and BOB on skyworld at 5 shots, confounding 0.8, with equal budgets.

    bob run skyworld --out out            about 5 minutes on 2 CPU cores
    """
    return _skyworld(("real_only", "datadream", "bob"), seeds)


def baselines(seeds: Sequence[int] = (0,)) -> list[Run]:
    """All methods on skyworld, as `skyworld` has its three.

    bob run baselines --out out
    """
    return _skyworld(registry.names("method"), seeds)


def _skyworld(names: Sequence[str], seeds: Sequence[int]) -> list[Run]:
    models = {"checkpoint": "skyworld", "backbone": "resnet_mini", "captioner": "qwen_vl:skyworld"}
    return [dataclasses.replace(defaults(**models, method=name), seed=seed) for seed in seeds for name in names]


def smoke(seeds: Sequence[int] = (0,)) -> list[Run]:
    """The same three methods with budgets so small that the numbers mean nothing: does it run?

    bob run smoke --out out               about a minute
    """
    return [
        dataclasses.replace(
            run,
            finetune=dataclasses.replace(run.finetune, epochs=2, warmup_steps=1),
            draw=dataclasses.replace(run.draw, per_class=2, steps=3, unit=10),
            sweep=dataclasses.replace(run.sweep, lrs=run.sweep.lrs[:1], sweep_epochs=1, final_epochs=2),
        )
        for run in skyworld(seeds)
    ]


EXPERIMENTS: dict[str, Callable[[Sequence[int]], list[Run]]] = {
    "baselines": baselines,
    "skyworld": skyworld,
    "smoke": smoke,
}


def load(name: str, seeds: Sequence[int]) -> list[Run]:
    """The runs of the experiment called `name`, one set for each seed.

    Raises:
        ValueError: if there is no such experiment; lists the known and the nearest.
    """
    if name not in EXPERIMENTS:
        raise ValueError(registry.unknown("experiment", name, EXPERIMENTS))
    return EXPERIMENTS[name](seeds)
