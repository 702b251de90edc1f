"""Metadata of a PNG that marks it as synthetic and names model and prompt (paper, ethics statement).

The marks are written between a PNG's header and its pixels, which are copied byte for byte. The XMP fields are those of
the IPTC Photo Metadata Standard 2025.1: Digital Source Type, AI System Used, AI Prompt Information.
"""

import io
import json
import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from PIL import PngImagePlugin

__all__ = ["SOFTWARE", "mark", "source_type"]

SOFTWARE = "beyond-objects"

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = len(_SIGNATURE) + 25  # bytes: length, name, 13 of IHDR, checksum
_SPACES = {
    "x": "adobe:ns:meta/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
}
_TERMS = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML does not allow."""


def mark(image: bytes, facts: Mapping[str, Any]) -> bytes:
    """Returns a PNG with its marks.

    Args:
        image: a PNG.
        facts: plain data about the image: `model`, `prompt`, `class_name`, `source_ids` and any other.

    Raises:
        ValueError: if the image is no PNG.
    """
    if not image.startswith(_SIGNATURE) or image[12:16] != b"IHDR":
        raise ValueError(f"only PNG can be marked, got {image[:8]!r}")
    marks = PngImagePlugin.PngInfo()
    marks.add_text("Software", SOFTWARE)
    marks.add_text("Description", _writable(_description(facts)))
    marks.add_itxt("Generation", _writable(json.dumps(dict(facts), ensure_ascii=False)))
    marks.add_itxt("XML:com.adobe.xmp", _xmp(facts))
    marked = io.BytesIO()
    marked.write(image[:_HEADER])
    for name, content, *_ in marks.chunks:
        PngImagePlugin.putchunk(marked, name, content)
    marked.write(image[_HEADER:])
    return marked.getvalue()


def source_type(facts: Mapping[str, Any]) -> str:
    """Returns IPTC's term for an image drawn by a model, from noise or from a real image."""
    return _TERMS + ("compositeWithTrainedAlgorithmicMedia" if facts["source_ids"] else "trainedAlgorithmicMedia")


def _description(facts: Mapping[str, Any]) -> str:
    real = ", starting from a real image" if facts["source_ids"] else ""
    return f"Synthetic image, no photograph. Drawn by {facts['model']}{real}, from the prompt: {facts['prompt']}"


def _xmp(facts: Mapping[str, Any]) -> str:
    for prefix, space in _SPACES.items():
        ElementTree.register_namespace(prefix, space)
    root = ElementTree.Element(_name("x:xmpmeta"))
    about = {_name("rdf:about"): ""}
    description = ElementTree.SubElement(
        ElementTree.SubElement(root, _name("rdf:RDF")), _name("rdf:Description"), about
    )
    for name, text in {
        "Iptc4xmpExt:DigitalSourceType": source_type(facts),
        "Iptc4xmpExt:AISystemUsed": facts["model"],
        "Iptc4xmpExt:AIPromptInformation": facts["prompt"],
        "xmp:CreatorTool": SOFTWARE,
    }.items():
        ElementTree.SubElement(description, _name(name)).text = _writable(text)
    languages = ElementTree.SubElement(ElementTree.SubElement(description, _name("dc:description")), _name("rdf:Alt"))
    default = {"{http://www.w3.org/XML/1998/namespace}lang": "x-default"}
    ElementTree.SubElement(languages, _name("rdf:li"), default).text = _writable(_description(facts))
    packet = ElementTree.tostring(root, encoding="unicode")
    return f'<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>{packet}<?xpacket end="w"?>'


def _name(short: str) -> str:
    prefix, _, name = short.partition(":")
    return f"{{{_SPACES[prefix]}}}{name}"


def _writable(text: str) -> str:
    return _UNWRITABLE.sub(" ", text)
