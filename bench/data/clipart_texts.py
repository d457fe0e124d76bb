"""What people wrote beside clip art: titles and keywords, cleaned of what is no description."""

import collections
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Collection, Mapping
from typing import NamedTuple

__all__ = ["Note", "class_words", "describe", "read_note", "stem", "without_collections", "words"]

_COLLECTION = 10  # as many pictures with one title, and it is that of a collection
_NOISE = frozenset(
    ["and", "art", "by", "clip", "clipart", "cliparts", "hash", "of", "openclipart", "svg", "the", "unsorted"]
)


class Note(NamedTuple):
    """What the metadata of a drawing says, and whether it shows a file that did not come with it."""

    title: str
    keywords: tuple[str, ...]
    creators: tuple[str, ...]
    incomplete: bool = False


def read_note(svg: bytes) -> Note:
    """Read the title, the keywords and the creators of a drawing; what is missing is empty."""
    root = ElementTree.fromstring(svg)
    work = next((element for element in root.iter() if _name(element.tag) == "Work"), None)
    fields: dict[str, list[str]] = collections.defaultdict(list)
    for field in work if work is not None else ():
        fields[_name(field.tag)] += [text.strip() for text in field.itertext() if text.strip()]
    linked = [
        not value.startswith("data:")
        for element in root.iter()
        if _name(element.tag) == "image"
        for attribute, value in element.items()
        if _name(attribute) == "href"
    ]
    return Note(" ".join(fields["title"]), tuple(fields["subject"]), tuple(fields["creator"]), any(linked))


def without_collections(notes: Mapping[str, Note]) -> dict[str, Note]:
    """Empty the titles that ten drawings or more carry: they name a collection, not what is drawn."""
    counts = collections.Counter(note.title for note in notes.values())
    return {key: note._replace(title="") if counts[note.title] >= _COLLECTION else note for key, note in notes.items()}


def class_words(label: str, notes: Mapping[str, Note]) -> frozenset[str]:
    """Return the stems that give a class away: those of its name, and those that over half of its pictures carry.

    `notes` are those of its pictures by file name, whose words count too.
    """
    counts: collections.Counter[str] = collections.Counter()
    for name, note in notes.items():
        counts.update({stem(word) for phrase in (name, note.title, *note.keywords) for word in words(phrase)})
    common = {word for word, count in counts.items() if count > len(notes) / 2}
    return frozenset(common | {stem(word) for word in words(label)})


def describe(note: Note, name: str, barred: Collection[str]) -> tuple[str, bool]:
    """Return the text of a picture, and whether it is of the file's name, because title and keywords say nothing.

    Phrases are joined by commas, without stems that are `barred` and words of the creators' names. Empty if the name
    says nothing either.
    """
    creators = {word for creator in note.creators for word in words(creator)}

    def cleaned(*phrases: str) -> str:
        kept = (
            " ".join(word for word in words(phrase) if word not in creators and stem(word) not in barred)
            for phrase in phrases
        )
        return ", ".join(dict.fromkeys(phrase for phrase in kept if phrase))

    text = cleaned(note.title, *note.keywords)
    return (text, False) if text else (cleaned(name), True)


def words(text: str) -> list[str]:
    """List the words of people's notes and file names, in lower case: no numbers, single letters or noise.

    >>> words("Clip_Art by N. - Red baloon1_04 (0x8a0ab9c)")
    ['red', 'baloon']
    """
    found = (re.fullmatch(r"([^\W\d_]{2,})\d*", token) for token in re.split(r"[\W_]+", text.lower()))
    return [match[1] for match in found if match and match[1] not in _NOISE]


def stem(word: str) -> str:
    """Return what the forms of a noun share, roughly.

    >>> [stem(word) for word in ("berries", "birds", "gas")]
    ['berry', 'bird', 'gas']
    """
    for ending, replacement in (("ies", "y"), ("s", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)] + replacement
    return word


def _name(tag: str) -> str:
    return tag.rpartition("}")[2]
