"""The data card of an export: README.md with the front matter of the Hugging Face hub."""

import html
import json
from collections.abc import Iterator, Mapping
from typing import Any

from bob import methods
from bob.commands.export.public import licence_of, model, public
from bob.store.images import ImageSet

__all__ = ["text"]

_LICENCES = {
    "Apache-2.0": "apache-2.0",
    "CreativeML Open RAIL-M": "creativeml-openrail-m",
    "CreativeML Open RAIL++-M": "openrail++",
}
"""Licence of a checkpoint -> what the hub calls it."""
_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M")
_EXAMPLES = 10
"""Prompts that are shown."""


def text(of: ImageSet, counts: Mapping[int, int], *, config: Mapping[str, Any], load: str) -> str:
    """What was exported, from what, by what, with what licence, and how it is read.

    Args:
        of: the set that was exported.
        counts: class id -> images.
        config: of the front matter: where the files lie.
        load: the code that reads them.
    """
    from huggingface_hub import DatasetCardData

    by, called, number = model(of.run["checkpoint"]), public(of.dataset), sum(counts.values())
    front = DatasetCardData(
        license=_LICENCES.get(by.licence, "unknown"),
        pretty_name=f"Synthetic images by {of.run['method']} for {called}",
        task_categories=["image-classification"],
        size_categories=[_SIZES[min(len(_SIZES) - 1, max(0, len(str(number)) - 3))]],
        tags=["synthetic", "text-to-image", "beyond-objects"],
        configs=[{"config_name": "default", **config}],
    )
    parts = [
        f"---\n{front.to_yaml()}\n---",
        f"# Synthetic images by {_shown(of.run['method'])} for {_shown(called)}",
        "Every image here was drawn by a model. None is a photograph, and none shows anything that has been.",
        _table({"images": f"{number:,}", "classes": str(len(counts)), **_facts(of)}),
        f"## Reading it\n\n```python\n{load}\n```",
        f"## Marks\n\n{_MARKS}",
        f"## Prompts\n\n{_prompts(of)}",
        f"## Licence and use\n\n{_licences(of, by.licence)}",
        f"## Classes\n\n{_classes(of, counts)}",
        f"## Provenance\n\nThe settings that the images depend on, and what drew them:\n\n{_provenance(of)}",
    ]
    return "\n\n".join(parts) + "\n"


_MARKS = """Each PNG says in its own metadata that it is synthetic, what drew it and from which prompt: in XMP, as the
IPTC Photo Metadata Standard 2025.1 has it (`DigitalSourceType`, which is trainedAlgorithmicMedia, or
compositeWithTrainedAlgorithmicMedia where it starts from a real image; `AISystemUsed`; `AIPromptInformation`), and in
the PNG texts `Software`, `Description` and `Generation`, which holds all that is known as JSON. Keep the marks where
you pass images on. The pixels are as drawn: there is no hidden watermark."""


def _facts(of: ImageSet) -> dict[str, str]:
    run, by = of.run, model(of.run["checkpoint"])
    first = of.requests.slice(0, 1).to_pylist()[0]
    return {
        "made for": public(of.dataset),
        "method": f"{run['method']} ({methods.load(run['method']).paper})",
        "model": by.words,
        "tuned": f"adapter {first['adapter'][-16:]}" if first["adapter"] else "no, the bare model",
        "tuned on": f"{run['shots']} real images of each class" if run["shots"] else "a long tail of real images",
        "captioner": public(run["captioner"]) if methods.load(run["method"]).needs_captions else "none",
        "kind": ", ".join(sorted(set(of.requests["kind"].to_pylist()))),
        "guidance": f"{first['guidance']:g}",
        "sampler": f"{first['steps']} steps, scheduler {first['scheduler']}",
        "seed of the run": str(run["seed"]),
        "made with": "beyond-objects, https://arxiv.org/abs/2510.24078",
    }


def _prompts(of: ImageSet) -> str:
    prompts = list(dict.fromkeys(of.requests["prompt"].to_pylist()))
    shown = "\n".join(f"- {_shown(prompt)}" for prompt in prompts[:: -(-len(prompts) // _EXAMPLES)])
    return f"{len(prompts):,} different ones; each image's own stands beside it. Some:\n\n{shown}"


def _licences(of: ImageSet, licence: str) -> str:
    drawn = f"the licence of its weights is {licence}" if licence else "the licence of its weights is not known here"
    real = licence_of(of.dataset)
    bound = f" The real images that it learnt from are bound by: {_shown(real)}." if real else ""
    return (
        f"Of the model that drew these images {drawn}: its conditions on use hold for them too.{bound} They are meant"
        " to train and to study classifiers. They repeat what the model and the real images get wrong, and an image may"
        " not show the class that it was asked for."
    )


def _classes(of: ImageSet, counts: Mapping[int, int]) -> str:
    rows = "\n".join(f"| {k} | {_shown(name)} | {counts.get(k, 0):,} |" for k, name in enumerate(of.class_names))
    return f"| label | class | images |\n|---|---|---|\n{rows}"


def _provenance(of: ImageSet) -> str:
    held = {"run": _run(of.run), "key": of.folder[-16:], "versions": of.origin["versions"]}
    return f"```json\n{json.dumps(held, indent=1, ensure_ascii=False)}\n```"


def _run(run: Mapping[str, Any]) -> dict[str, Any]:
    """What of its settings the images depend on, without this machine's folders and our classes' names."""
    plain = {name: public(run[name]) for name in ("dataset", "checkpoint", "captioner")}
    plain |= {name: run[name] for name in ("method", "descriptor", "shots", "seed")}
    nested = {name: {k: v for k, v in run[name].items() if k} for name in ("finetune", "draw")}
    return plain | nested


def _table(facts: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *_lines(facts)])


def _lines(facts: Mapping[str, str]) -> Iterator[str]:
    for name, value in facts.items():
        yield f"| {name} | {_shown(value)} |"


def _shown(text: str) -> str:
    """Text that means itself in Markdown: a class may be called anything."""
    plain = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{letter}" if letter in "\\`*_[]|~#" else letter for letter in plain)
