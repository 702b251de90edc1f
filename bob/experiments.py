"""What can be run by name: functions that return lists of `Run`. A number in a table leads to one of these."""

from collections.abc import Callable, Sequence

from bob import backbones, registry
from bob.diffusion import checkpoints
from bob.settings import Run

__all__ = ["EXPERIMENTS", "defaults", "load", "skyworld", "smoke"]


def defaults(*, checkpoint: str, backbone: str, captioner: str) -> Run:
    """A run with the settings that its T2I checkpoint and its backbone are tuned and swept with."""
    known = checkpoints.settings(checkpoint)
    return Run(
        dataset="skyworld:0.8",
        method="bob",
        checkpoint=checkpoint,
        captioner=captioner,
        backbone=backbone,
        finetune=known.finetune,
        draw=known.draw,
        sweep=backbones.load(backbone).sweep,
    )


def skyworld(seeds: Sequence[int] = (0,)) -> list[Run]:
    """Real Only, DataDream and BOB on skyworld at 5 shots, confounding 0.8, with equal budgets.

    bob run skyworld --out out            about 5 minutes on 2 CPU cores
    """
    import dataclasses

    base = defaults(checkpoint="skyworld", backbone="resnet_mini", captioner="qwen_vl:skyworld")
    return [
        dataclasses.replace(base, method=method, seed=seed)
        for seed in seeds
        for method in ("real_only", "datadream", "bob")
    ]


def smoke(seeds: Sequence[int] = (0,)) -> list[Run]:
    """The same three methods with budgets so small that the numbers mean nothing: does it run?

    bob run smoke --out out               about a minute
    """
    import dataclasses

    return [
        dataclasses.replace(
            run,
            finetune=dataclasses.replace(run.finetune, epochs=2, warmup_steps=1),
            draw=dataclasses.replace(run.draw, per_class=2, steps=3, unit=10),
            sweep=dataclasses.replace(run.sweep, lrs=run.sweep.lrs[:1], sweep_epochs=1, final_epochs=2),
        )
        for run in skyworld(seeds)
    ]


EXPERIMENTS: dict[str, Callable[[Sequence[int]], list[Run]]] = {"skyworld": skyworld, "smoke": smoke}


def load(name: str, seeds: Sequence[int]) -> list[Run]:
    """The runs of the experiment called `name`, one set for each seed.

    Raises:
        ValueError: if there is no such experiment; lists the known and the nearest.
    """
    if name not in EXPERIMENTS:
        raise ValueError(registry.unknown("experiment", name, EXPERIMENTS))
    return EXPERIMENTS[name](seeds)
