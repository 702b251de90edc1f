"""Cleaning of a captioner's raw answers into the words that fit into BOB's template.

The template reads "... in the [background] background with the [pose] pose.", so an answer loses its
article, its lead-in ("the background of the bird is", "a bird on") and a closing "background" or "pose".
An answer that names a class would tie the context to that class again: the name becomes "a [descriptor]".
The paper describes no such step and inserts the answer as it is, which `verbatim` does; `PROMPT_VERSION`
changes when a rule does.
"""

import functools
import re
from collections.abc import Collection, Sequence

__all__ = ["PROMPT_VERSION", "clean", "verbatim"]

PROMPT_VERSION = 2
"""Version of the questions and of these rules: part of a caption's key."""

_FALLBACK = {"background": "plain", "pose": "typical"}
_MAX_WORDS = 12
_SYNONYMS = {"background": "background|backdrop|setting", "pose": "pose|position|posture"}
_VERB = (
    r"(?:is|are|was|shows?|features?|depicts?|includes?|contains?|appears?|seems?|consists? of)"
    r"(?: to (?:be|have|show))?\b[:,]?"
)

# What an answer about a background may say of the object before it comes to the place.
_DOING = (
    "blooming|captured|displayed|driving|floating|flying|growing|hovering|landing|lying|parked|perched|photographed"
    "|placed|positioned|resting|seen|set|shown|sitting|soaring|standing|surrounded|swimming|taking off|taxiing|walking"
)
_PLACE = (
    "in front of|on top of|next to|against|inside|outside|across|through|along|amidst?|among|beneath|beside|under|above"
    "|near|over|with|at|by|in|on"
)

# Names of classes that in small letters are something else: weather, an animal, a soldier.
_HOMONYMS = frozenset(
    "beetle charger falcon hawk magnum mustang patriot ram ranger titan tornado typhoon viper".split()
)

# Words of class names (of birds, cars, flowers, pets, aircraft) that also describe places, light and posture:
# alone they name no class. A whole name counts even if it consists of them.
_COMMON = frozenset(
    """
    and by for from of on or the to with up poor will
    black blue bronze brown cerulean chestnut colored crimson dark deep glossy gold golden gray green grey indigo
    ivory light maroon olive orange painted pale pied pink purple red rose ruby rufous scarlet shiny silver sooty
    spotted striped tan vermilion violet white yellow
    alpine american arctic asian australian british californian canadian carolina chinese eastern egyptian english
    european florida french german indian italian japanese kentucky louisiana mexican nashville northern norwegian
    pacific persian peruvian philadelphia russian scottish southern spanish swiss tennessee tropical western
    backed bearded bellied belted billed breasted capped cheeked chin chipping collared crested crowned eared eating
    eyed face faced feathers foot footed fronted hair haired hairy headed hooded horned leaved legged lipped mourning
    naked necked rumped sided streaked tailed throated warbling winged
    air apple ball balloon bank barn bay bells blanket boat cactus canyon cape cave cedar city clay cliff corn
    country cup desert field fire fish flower forest fox garden glory grape grass grasshopper ground herring hill
    house island lake land leaf magnolia mangrove marsh meadow mist moon moss mountain ocean orchard palm paradise
    park pigeon pine plant pool prairie rock sage sand savannah sea seaside shrub sky snow star sun sunset swamp
    terrain thorn town tree wall water wire wood worm
    autumn evening morning night spring summer winter
    accent avalanche bird bull cab cargo club common compass cooper crew double edge express extended focus general
    ghost giant global globe great hard heavy journey king least liberty little long love metro miniature model neon new
    passion pocket pointer prince queen range regular ring saint short single smart song sonic standard super sweet
    sword tall tiger trumpet type van wagon wild
    """.split()
)


def clean(raw: str, *, about: str, descriptor: str, class_names: Sequence[str]) -> tuple[str, bool]:
    """Cleans one answer for use in a prompt.

    Args:
        raw: the captioner's answer.
        about: subject of the question, `background` or `pose`.
        descriptor: one word for all classes.
        class_names: names of all classes: another class's name leaks as well.

    Returns:
        1 to 12 words, never empty ("plain" background, "typical" pose), and whether the first sentence
        of the answer named a class: by its whole name, or by a word of it that is not in `_COMMON`; a word
        of `_HOMONYMS` counts with a capital letter or before the descriptor only.
    """
    text = _first_sentence(raw)
    text, leaks = _leak(tuple(class_names), descriptor).subn(f"a {descriptor}", text)
    text = _without_lead_in(text, about, descriptor)
    text = re.sub(rf"(?i)\b(?:{_SYNONYMS[about]}) of (?:the |a |an )?", "", _trimmed(text))
    text = re.sub(rf"(?i)^in an? (?=.+ (?:{_SYNONYMS[about]}|view)$)", "", text)
    text = re.sub(rf"(?i)(?:^|\s)(?:in (?:the|a|an) )?(?:{_SYNONYMS[about]})$", "", text)
    text = _shortened(_trimmed(text))
    if re.match(r"[A-Z][a-z]", text):
        text = text[0].lower() + text[1:]
    return text or _FALLBACK[about], leaks > 0


def verbatim(raw: str, *, about: str) -> str:
    """The answer as it is, on one line; the same fallbacks as `clean` if it is empty."""
    return " ".join(raw.split()) or _FALLBACK[about]


def _first_sentence(raw: str) -> str:
    line = next((line for line in raw.splitlines() if line.strip()), "")
    line = re.sub(r"[\"“”„*_`]|(?<!\w)['‘’]|['‘’](?!\w)", " ", line)
    return _trimmed(re.split(r"(?<=[^\W\d_]{3})[.!?](?:\s|$)", line, maxsplit=1)[0])


def _trimmed(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip(" .,;:!?-")


def _without_lead_in(text: str, about: str, descriptor: str) -> str:
    """Drops "the background of a bird is", "a bird is", "in the background:" and an article, in turn."""
    subject = rf"(?:(?:the|a|an|this|its) )?{re.escape(descriptor)}s?\b"
    noun = rf"(?:(?:the|a|an|its) )?(?:{_SYNONYMS[about]})\b"
    for lead_in in (
        rf"in {noun},? (?:there (?:is|are)\b)?|{noun}(?: of| behind| for)?(?: {subject})? ?(?:{_VERB}|:)",
        rf"{noun} (?:of|behind) {subject}[:,]?",
        rf"{subject}(?:'s (?:{_SYNONYMS[about]}))? {_VERB}",
        rf"{subject}(?=\s(?!of\b)\w)" if about == "pose" else rf"(?:{subject} )?(?:(?:{_DOING}) )?(?:{_PLACE})(?=\s\w)",
        rf"there (?:is|are)\b|(?:it|this) {_VERB}",
        "the|an|a",
    ):
        text = re.sub(rf"(?i)^(?:{lead_in})(?:\s+|$)", "", text)
    return text


def _shortened(text: str) -> str:
    """The clauses that fit into `_MAX_WORDS`; the first words if not even one clause fits."""
    if len(text.split()) <= _MAX_WORDS:
        return text
    head = " ".join(text.split()[:_MAX_WORDS])
    clauses = list(re.finditer(r"[,;:]\s| (?=(?:and|with|while|where|which|that|as) )", head))
    head = head[: clauses[-1].start()] if clauses else head
    return re.sub(r"(?i)(?:\s(?:a|an|the|and|or|of|in|on|at|by|to|with|its|is))+$", "", _trimmed(head))


@functools.cache
def _leak(class_names: tuple[str, ...], descriptor: str) -> re.Pattern[str]:
    """Matches a noun phrase that names a class: article, names one after the other, descriptor."""
    own = (descriptor.lower(), f"{descriptor.lower()}s")
    named: set[str] = set()
    for name in class_names:
        parts = [part.lower() for part in re.findall(r"[^\W_]+", name)]
        # Words of one or two characters are too ambiguous; the whole name still counts.
        named |= {part for part in parts if len(part) > 2 and part not in _COMMON and part not in own}
        if "".join(parts) not in own:
            named.add(r"[\W_]*".join(parts))
    words = (_capital(word, descriptor) if word in _HOMONYMS else word for word in _longest_first(named - {""}))
    either = "|".join(words) or "(?!)"
    one = rf"(?<![^\W_])(?:{either})s?(?![^\W_])"
    return re.compile(
        rf"(?:\b(?:a|an|the) )?{one}(?:[\s-]+{one})*(?:[\s-]+{re.escape(descriptor)}s?\b)?", re.IGNORECASE
    )


def _longest_first(words: Collection[str]) -> list[str]:
    return sorted(words, key=lambda word: (-len(word), word))


def _capital(word: str, descriptor: str) -> str:
    """Matches a word that begins with a capital letter, or that stands before the descriptor."""
    return rf"(?-i:{word.capitalize()}|{word.upper()})|{word}(?=[\s-]+{re.escape(descriptor)}s?\b)"
