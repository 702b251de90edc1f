"""Counts memory and arithmetic of each step with each model on torch's meta device; makes bob/core/memory_table.json.

    python -m benchmarks.memory --table bob/core/memory_table.json --report benchmarks/DATE-memory.md
    python -m benchmarks.memory                                      prints the report of the table that is there

Takes some 3 minutes and 2 GB; no GPU, no weights, no network: architectures come from configuration, tensors have
shapes and no numbers. A training step runs the project's own code: its LoRA, its loss, its backbones. Bytes are the
peak of all live tensors; the difference of two batches gives the part that is proportional to the images.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.counting import diffusion, others
from benchmarks.counting.report import report


def make() -> dict[str, Any]:
    """The whole table."""
    return {
        "made": f"{time.strftime('%Y-%m-%d')}, torch {torch.__version__}, python -m benchmarks.memory",
        "finetune": {name: diffusion.finetune(name) for name in diffusion.ARCHITECTURES},
        "generate": {name: diffusion.generate(name) for name in diffusion.ARCHITECTURES},
        "caption": {f"qwen_vl:{size}": others.caption(size) for size in others.CAPTIONERS},
        "classify": {name: others.classify(name) for name in others.BACKBONES},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Counts if a table is asked for, and reports."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--table", default="", help="the JSON file to write; empty: nothing is counted")
    parser.add_argument("--report", default="", help="a Markdown file to write; empty: it is printed only")
    given = parser.parse_args(arguments)
    if given.table:
        Path(given.table).write_text(json.dumps(make(), indent=1) + "\n", encoding="utf-8")
    text = report()
    print(text)
    if given.report:
        Path(given.report).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
