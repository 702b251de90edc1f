"""Data card of an export: README.md with the front matter of the Hugging Face hub."""

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
"""Licence of a checkpoint -> its identifier on the hub."""
_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M")
_EXAMPLES = 10
"""Number of prompts shown."""


def text(image_set: ImageSet, counts: Mapping[int, int], *, config: Mapping[str, Any], load: str) -> str:
    """Returns the data card: content, origin, model, licence, and code to read the export.

    Args:
        image_set: the exported set.
        counts: class id -> images.
        config: configuration in the front matter: paths of the files.
        load: code that reads the files.
    """
    from huggingface_hub import DatasetCardData

    t2i, dataset, number = model(image_set.run["checkpoint"]), public(image_set.dataset), sum(counts.values())
    front = DatasetCardData(
        license=_LICENCES.get(t2i.licence, "unknown"),
        pretty_name=f"Synthetic images by {image_set.run['method']} for {dataset}",
        task_categories=["image-classification"],
        size_categories=[_SIZES[min(len(_SIZES) - 1, max(0, len(str(number)) - 3))]],
        tags=["synthetic", "text-to-image", "beyond-objects"],
        configs=[{"config_name": "default", **config}],
    )
    parts = [
        f"---\n{front.to_yaml()}\n---",
        f"# Synthetic images by {_escaped(image_set.run['method'])} for {_escaped(dataset)}",
        "Every image here was drawn by a model. None is a photograph, and none shows anything that has been.",
        _table({"images": f"{number:,}", "classes": str(len(counts)), **_facts(image_set)}),
        f"## Reading it\n\n```python\n{load}\n```",
        f"## Marks\n\n{_MARKS}",
        f"## Prompts\n\n{_prompts(image_set)}",
        f"## Licence and use\n\n{_licences(image_set, t2i.licence)}",
        f"## Classes\n\n{_classes(image_set, counts)}",
        f"## Provenance\n\nSettings and software that the images depend on:\n\n{_provenance(image_set)}",
    ]
    return "\n\n".join(parts) + "\n"


_MARKS = """Each PNG says in its own metadata that it is synthetic, by which model and from which prompt: in XMP, as the
IPTC Photo Metadata Standard 2025.1 has it (`DigitalSourceType`, which is trainedAlgorithmicMedia, or
compositeWithTrainedAlgorithmicMedia where it starts from a real image; `AISystemUsed`; `AIPromptInformation`), and in
the PNG texts `Software`, `Description` and `Generation`, which holds all that is known as JSON. Keep the marks where
you pass images on. The pixels are as drawn: there is no hidden watermark."""


def _facts(image_set: ImageSet) -> dict[str, str]:
    run, t2i = image_set.run, model(image_set.run["checkpoint"])
    first = image_set.requests.slice(0, 1).to_pylist()[0]
    return {
        "made for": public(image_set.dataset),
        "method": f"{run['method']} ({methods.load(run['method']).paper})",
        "model": t2i.words,
        "tuned": f"adapter {first['adapter'][-16:]}" if first["adapter"] else "no, the bare model",
        "tuned on": f"{run['shots']} real images of each class" if run["shots"] else "a long tail of real images",
        "captioner": public(run["captioner"]) if methods.load(run["method"]).needs_captions else "none",
        "kind": ", ".join(sorted(set(image_set.requests["kind"].to_pylist()))),
        "guidance": f"{first['guidance']:g}",
        "sampler": f"{first['steps']} steps, scheduler {first['scheduler']}",
        "seed of the run": str(run["seed"]),
        "made with": "beyond-objects, https://arxiv.org/abs/2510.24078",
    }


def _prompts(image_set: ImageSet) -> str:
    prompts = list(dict.fromkeys(image_set.requests["prompt"].to_pylist()))
    shown = "\n".join(f"- {_escaped(prompt)}" for prompt in prompts[:: -(-len(prompts) // _EXAMPLES)])
    return f"{len(prompts):,} different ones; each image comes with its own. Some:\n\n{shown}"


def _licences(image_set: ImageSet, licence: str) -> str:
    drawn = f"the licence of its weights is {licence}" if licence else "the licence of its weights is not known here"
    real = licence_of(image_set.dataset)
    bound = f" The real images that it learnt from are bound by: {_escaped(real)}." if real else ""
    return (
        f"Of the model that drew these images {drawn}: its conditions on use hold for them too.{bound} They are meant"
        " to train and to study classifiers. They repeat errors of the model and of the real images, and an image may"
        " not show the class that it was asked for."
    )


def _classes(image_set: ImageSet, counts: Mapping[int, int]) -> str:
    rows = "\n".join(
        f"| {k} | {_escaped(name)} | {counts.get(k, 0):,} |" for k, name in enumerate(image_set.class_names)
    )
    return f"| label | class | images |\n|---|---|---|\n{rows}"


def _provenance(image_set: ImageSet) -> str:
    provenance = {"run": _run(image_set.run), "key": image_set.folder[-16:], "versions": image_set.origin["versions"]}
    return f"```json\n{json.dumps(provenance, indent=1, ensure_ascii=False)}\n```"


def _run(run: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that the images depend on, without this machine's folders and internal class names."""
    plain = {name: public(run[name]) for name in ("dataset", "checkpoint", "captioner")}
    plain |= {name: run[name] for name in ("method", "descriptor", "shots", "seed")}
    nested = {name: {k: v for k, v in run[name].items() if k} for name in ("finetune", "draw")}
    return plain | nested


def _table(facts: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *_lines(facts)])


def _lines(facts: Mapping[str, str]) -> Iterator[str]:
    for name, value in facts.items():
        yield f"| {name} | {_escaped(value)} |"


def _escaped(text: str) -> str:
    """Escapes text for Markdown: a class may have any name."""
    plain = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{letter}" if letter in "\\`*_[]|~#" else letter for letter in plain)
