"""Command that trains the mini checkpoints of skyworld from scratch.

    python -m bob.skyworld.pretrain --out weights [--only vae sd captioner resnet mae clip probe] [--threads 2]

Renders the base world, then trains an autoencoder, the U-Net and text encoder on its latents, a
captioner, a ResNet, a MAE, a CLIP, and the probe that `bob.skyworld.evaluate` reads drawn pictures with.
Seeded; shows progress; the same command resumes. Copy all but `probe` and `work` of the output folder
to `bob/skyworld/weights` to ship them.

`bob/skyworld/weights/README.md` lists each stage's time on one core of an AMD EPYC (Zen 5), shared with
other work, and its measured quality.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from bob.core.seeds import derive
from bob.skyworld.pretrain_captioner import captioner
from bob.skyworld.pretrain_clip import clip
from bob.skyworld.pretrain_mae import mae
from bob.skyworld.pretrain_resnet import probe, resnet
from bob.skyworld.pretrain_sd import sd
from bob.skyworld.pretrain_vae import vae

__all__ = ["STAGES", "main"]

STAGES: dict[str, Callable[[Path, Path], None]] = {
    "vae": vae,
    "sd": sd,
    "captioner": captioner,
    "resnet": resnet,
    "mae": mae,
    "clip": clip,
    "probe": probe,
}
"""Name of a stage -> its function (output folder, work folder), in the order of dependence."""


def main() -> None:
    """Runs the stages that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoints")
    parser.add_argument("--work", type=Path, help="folder for renders and resumable state [OUT/work]")
    parser.add_argument("--only", nargs="*", choices=STAGES, default=list(STAGES), help="stages to run")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    arguments = parser.parse_args()
    work = arguments.work or arguments.out / "work"
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    for stage in arguments.only:
        torch.manual_seed(derive("skyworld", "initial weights", stage))
        STAGES[stage](arguments.out, work)


if __name__ == "__main__":
    main()
