"""One step of each stage at full size without a GPU: what the host does, beside what an H100 would need meanwhile.

    python -m benchmarks.real_size --out FILE.md          all stages, some 4 minutes and 4 GB
    python -m benchmarks.real_size --only clip            those with `clip` in their name

Where the host takes longer than the GPU, the GPU waits. The code measured is the project's own, with models made from
their configurations: no weights, no network.

What the columns are:
- `host`: CPU milliseconds of one thread with the device's work taken away: meta tensors in place of the GPU's
  (captions: all layers, next to no width, computed). Best step of a few; wall-clock time does not enter, so that a busy
  machine matters little. More than beside a GPU: many of torch's kernels for meta tensors are written in Python and
  slower than a launch (a convolution's backward pass 100 us, an attention 300; a multi-tensor optimiser goes tensor by
  tensor).
- `beside`: the part of it outside of the networks' passes and the optimiser: this project's own work, which the host of
  a GPU has as well.
- `operations`: calls that launch a kernel or more; views and allocations are left out.
- `least`: `beside` + `operations` x 5 us, which is assumed for a launch: less than beside a GPU, since the Python of
  the networks' layers is left out. The truth lies between `least` and `host`.
- `products`: milliseconds of the H100 for all products and convolutions at 60 % of its peak, in the precision named;
  float32 convolutions run in TF32.
- `memory`: milliseconds for reading all inputs and writing all outputs of all operations at its peak bandwidth. Kernels
  that are fused need less.
- `the GPU waits`: at least so long: `least` (captions: `host`) less the larger of these two.
- `to it`, `back`: bytes copied, and number of copies; `waits`: reads of results, and copies that are not asynchronous,
  each of which ends with a synchronisation of the stream. Counted on the tests' pretended GPU.
- `GB`: peak of all live tensors; activations are what a step adds to weights, optimiser and gradients.

Differences from a GPU: what the code does only where `device.type` is `cuda` shows in copies and waits, not in `host`;
autocast is replaced by casts of our own at each product, without torch's cache of cast weights.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.counting.host import Laps
from benchmarks.counting.measured import BANDWIDTH, EFFICIENCY, LAUNCH, Measured, measure
from benchmarks.counting.meter import picture
from benchmarks.counting.stages import CLASSES, DRAWN, STAGES, micro_batch
from bob.core.memory import CARDS
from bob.core.types import Request
from bob.store import images


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and writes the report."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--only", default="", help="part of the names of the stages to measure; empty: all")
    parser.add_argument("--out", default="", help="a Markdown file to write; empty: it is printed only")
    given = parser.parse_args(arguments)
    chosen = [stage for stage in STAGES if given.only in stage.name]
    if not chosen:
        parser.error(f"no stage has {given.only!r} in its name; known: {', '.join(stage.name for stage in STAGES)}")
    start, rows = time.monotonic(), []
    torch.set_num_threads(1)
    for stage in chosen:
        rows.append(measure(stage))
        print(f"{stage.name}: {1e3 * rows[-1].host:,.0f} ms of host work", flush=True)
    text = _report(rows, took=time.monotonic() - start)
    print(f"\n{text}")
    if given.out:
        Path(given.out).write_text(text, encoding="utf-8")


def _report(rows: Sequence[Measured], *, took: float) -> str:
    peaks = CARDS["H100"].peaks
    limits = ", ".join(f"{name} {peaks[name] / 1e12:,.0f}" for name in ("bfloat16", "tf32", "float32"))
    lines = [
        f"# One step of each stage at full size, {time.strftime('%Y-%m-%d')}",
        "",
        f"`python -m benchmarks.real_size`, torch {torch.__version__}, {took:.0f} s; no GPU. An H100's peaks: TFLOP/s"
        f" {limits}; {BANDWIDTH / 1e12:.2f} TB/s. Products at {100 * EFFICIENCY:.0f} % of the peak, a launch"
        f" {1e6 * LAUNCH:.0f} us.",
        "",
        *_times(rows),
        "",
        *_counts(rows),
        "",
        "CPU milliseconds of `host` by activity:",
        "",
        *(f"- {row.stage.name}: {_split(row.laps)}" for row in rows),
        "",
        f"LoRA steps: 80 photographs of 768 x 512 in micro-batches of {micro_batch('sd15')} (sd15) and"
        f" {micro_batch('sd21')} (sd21), as the memory model has them on an H100. Classifiers: {CLASSES} classes, half"
        f" of the images synthetic. Writing {DRAWN} drawn pictures as PNG takes {1e3 * _written():,.0f} ms more.",
    ]
    return "\n".join(lines) + "\n"


def _times(rows: Sequence[Measured]) -> list[str]:
    """Host and GPU, in milliseconds."""
    table = ["| ms a step | images | host | beside | operations | least | products | memory | the GPU waits |"]
    table.append("|---" * 9 + "|")
    for row in rows:
        gpu, needs = max(row.arithmetic, row.memory), row.host if row.stage.narrow else row.least
        waits = f"{1e3 * (needs - gpu):,.0f}" if needs > gpu else "-"
        figures = (row.host, row.beside), (row.least, row.arithmetic, row.memory)
        host, device = (" | ".join(f"{1e3 * value:,.1f}" for value in values) for values in figures)
        name, operations = f"{row.stage.name}, {row.stage.precision}", f"{row.counts['operations']:,.0f}"
        table.append(f"| {name} | {row.stage.images} | {host} | {operations} | {device} | {waits} |")
    return table


def _counts(rows: Sequence[Measured]) -> list[str]:
    """Copies, memory and arithmetic."""
    table = ["| a step | to it, MB (copies) | back, MB | waits (results + copies) | peak GB | activations GB | TFLOP |"]
    table.append("|---" * 7 + "|")
    for row in rows:
        counts = row.counts
        sent = f"{counts['to_device'] / 1e6:,.1f} ({counts['copies']:,.0f})"
        waits = f"{counts['waits'] + counts['blocking']:,.0f} ({counts['waits']:,.0f} + {counts['blocking']:,.0f})"
        flops = (counts["convolutions"] + counts["products"]) / 1e12
        table.append(
            f"| {row.stage.name} | {sent} | {counts['to_host'] / 1e6:,.2f} | {waits} | {row.peak / 1e9:,.1f}"
            f" | {row.activations / 1e9:,.1f} | {flops:,.2f} |"
        )
    return table


def _split(laps: dict[str, float]) -> str:
    ordered = sorted(laps.items(), key=lambda lap: -lap[1])
    return ", ".join(f"{name} {1e3 * seconds:,.1f}" for name, seconds in ordered)


def _written() -> float:
    """CPU seconds of making the rows of a batch of drawn pictures: PNG and hash."""
    request = Request(request_id="0-0", class_id=0, index=0, seed=0, prompt="an aircraft")
    pictures, laps = [picture(k, 512, 512) for k in range(DRAWN)], Laps()
    for _ in range(3):
        for one in pictures:
            images.image_row(request, one, checkpoint="sd15", seconds=0.0)
        laps.cut()
    return sum(laps.best().values())


if __name__ == "__main__":
    main()
