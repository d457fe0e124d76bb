"""A recipe: how an exemplar is made and restored, as data."""

import dataclasses
import inspect
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from exmem.codecs import CODECS, codec_name
from exmem.errors import InvalidExemplarError, SchemaError
from exmem.masking import KEEP_RULES, TEXT_RULES, ScoreMaps
from exmem.masking.scorers import SCORERS
from exmem.recipes.fills import FILLS
from exmem.recipes.forms import FORMS, Form
from exmem.registry import Part, Registry
from exmem.tokens.checks import mapping_of, shown

__all__ = ["EXTRAS", "RECIPES", "Recipe"]

EXTRAS = ("features", "logits")
"""What may be stored beside the tokens: the learner's features and its logits when the exemplar was made."""

SCORELESS = frozenset({"all", "none"})
"""Text rules that look at no score."""

_POSITIONS = 4096  # more patches than images have; the recipe is tried again with those of its backbone
_MADE_LATER = {"scorer": {"objective"}, "keep": {"valid", "encoded_bytes"}}
_PARTS: dict[str, Registry[Any]] = {
    "image": FORMS,
    "scorer": SCORERS,
    "keep": KEEP_RULES,
    "text": TEXT_RULES,
    "fill": FILLS,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an exemplar is made of an image and a text, and what becomes of it at replay.

    Each part is a name with its options, written `NAME`, `NAME:OPTION=VALUE,...` or as a mapping with `name`. The
    defaults are what did best at equal bytes on the demo data, not what the paper does (that is `masked`).

    Parameters
    ----------
    name : str
        What tables and progress call it.
    image : Part
        What is stored of the image, a key of `FORMS`: patches, scaled, scales, smoothed or rate; hidden tokens of a
        frozen layer; features, of image and text together; none for no image.
    scorer : Part
        What gives tokens an importance, a key of `SCORERS`; asked only where the image form or the text rule needs it.
    keep : Part
        Which patches are kept (at the finest scale), a key of `KEEP_RULES`.
    text : Part
        Which words are kept, a key of `TEXT_RULES`: all, keep_ratio, lost_patches (the paper's), or none.
    codec : Part
        Payload codec of pixels, hidden tokens or features, a key of `CODECS` without `exmem.`.
    fill : Part
        What becomes of dropped patches at replay, a key of `FILLS`.
    extras : tuple of {"features", "logits"}
        What is stored beside the tokens.

    Raises
    ------
    SchemaError
        If a part, an option or an extra is unknown, a value is out of its range, or a part has no effect because
        image form and text rule do not use it.

    Examples
    --------
    >>> recipe = Recipe.of("masked").refined(scorer="cls_attention:layers=[-3]", codec="patch_jpeg:quality=50")
    >>> Recipe.from_json(recipe.to_json()) == recipe
    True
    """

    name: str = "own"
    image: Part = Part("scaled", (("divisor", 2),))
    scorer: Part = Part("cls_attention")
    keep: Part = Part("mean_threshold")
    text: Part = Part("all")
    codec: Part = Part("patch_jpeg", (("quality", 30),))
    fill: Part = Part("drop")
    extras: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field, registry in _PARTS.items():
            try:
                part = Part.of(getattr(self, field))
            except SchemaError as error:
                raise SchemaError(f"{field}: {error}") from error
            object.__setattr__(self, field, part)
            _check(field, part, registry)
        object.__setattr__(self, "codec", Part.of(self.codec))
        if codec_name(self.codec.name) not in CODECS:
            raise SchemaError(f"codec: unknown {self.codec.name!r}; choose one of {sorted(CODECS)}")
        if not isinstance(self.extras, list | tuple) or not all(name in EXTRAS for name in self.extras):
            raise SchemaError(f"extras: expected some of {list(EXTRAS)}, got {shown(self.extras)}")
        if len(set(self.extras)) < len(self.extras):
            raise SchemaError(f"extras: expected each once, got {list(self.extras)}")
        object.__setattr__(self, "extras", tuple(sorted(self.extras)))
        self.check_used(
            {field.name for field in dataclasses.fields(self) if getattr(self, field.name) != field.default}
        )
        try_keep(self.keep, _POSITIONS)
        _try_text(self.text)
        _try_scorer(self.scorer)
        if self.fill.name == "thumbnail" and not self.image.kwargs.get("thumbnail"):
            raise SchemaError(
                f"fill 'thumbnail' needs a stored one: image 'patches:thumbnail=28' or so, got {str(self.image)!r}"
            )

    @property
    def is_empty(self) -> bool:
        """Whether it stores nothing at all: no memory, fine-tuning."""
        return self.level == "none" and self.text.name == "none"

    @property
    def level(self) -> str:
        """What is stored of an image: pixels, hidden tokens, features, or none."""
        return self.form().level

    @property
    def unused(self) -> frozenset[str]:
        """Which of its parts have no effect on what is stored; a fill of pixels may have one in an augmentation."""
        used = {*self.form().uses}
        if self.level in {"pixels", "none"}:
            used.add("fill")
        if self.text.name not in SCORELESS:
            used |= {"scorer", "keep"} if "scorer" in used else {"scorer"}
        return frozenset({"scorer", "keep", "codec", "fill"} - used)

    def check_used(self, given: Collection[str]) -> None:
        """Refuse parts that were given and have no effect.

        Parameters
        ----------
        given : collection of str
            Fields, those that always have an effect among them.

        Raises
        ------
        SchemaError
            If the image form and the text rule use none of one of them.
        """
        for name in sorted(self.unused.intersection(given)):
            forms = sorted(form for form in FORMS if name in FORMS[form].uses)
            raise SchemaError(
                f"{name} {str(getattr(self, name))!r} has no effect with image {str(self.image)!r} and text "
                f"{str(self.text)!r}; leave it out, or choose one of the image forms {forms}"
            )

    def form(self) -> Form:
        """Return the image form."""
        try:
            return FORMS.make(self.image.name, **self.image.kwargs)
        except SchemaError:
            raise
        except (TypeError, ValueError) as error:
            raise SchemaError(f"image {str(self.image)!r} has an option of another kind: {error}") from error

    def refined(self, **changes: Any) -> "Recipe":
        """Return the recipe with other parts.

        Parameters
        ----------
        **changes : part
            Fields and what they become, in any way that a part is written.

        Returns
        -------
        Recipe
            Another recipe of the same name.

        Raises
        ------
        SchemaError
            If a field, a part or an option is unknown.
        """
        return Recipe.from_json({**self.to_json(), **changes})

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as plain JSON values."""
        document = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            key: value.to_json() if isinstance(value, Part) else list(value) if isinstance(value, tuple) else value
            for key, value in document.items()
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Recipe":
        """Read what `to_json` returned, or a part of it.

        Parameters
        ----------
        document : mapping
            Fields; those left out have their defaults.

        Returns
        -------
        Recipe
            The recipe.

        Raises
        ------
        SchemaError
            If a key is unknown or a value is none.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(map(str, mapping_of(document, "recipe"))) - set(known))
        if unknown:
            raise SchemaError(f"recipe: unknown keys {unknown}; known are {known}")
        values = dict(document)
        if isinstance(values.get("extras"), list):
            values["extras"] = tuple(values["extras"])
        if not isinstance(values.get("name", ""), str):
            raise SchemaError(f"recipe: expected text as name, got {shown(values['name'])}")
        return cls(**values)

    @classmethod
    def of(cls, value: "str | os.PathLike[str] | Mapping[str, Any] | Recipe") -> "Recipe":
        """Find a recipe by name, or read it from a file or a mapping.

        Parameters
        ----------
        value : str, path, mapping or Recipe
            A key of `RECIPES`, a file that ends in `.json`, `.yaml` or `.yml`, or what `to_json` returned.

        Returns
        -------
        Recipe
            The recipe.

        Raises
        ------
        SchemaError
            If there is none of that name, or the file is no recipe.
        """
        if isinstance(value, Recipe):
            return value
        if isinstance(value, Mapping):
            return cls.from_json(value)
        if not isinstance(value, str | os.PathLike):
            raise SchemaError(f"expected the name of a recipe, a file or a mapping, got {shown(value)}")
        if Path(value).suffix in _FILES:
            document = {"name": Path(value).stem, **read_document(value)}
            try:
                return cls.from_json(document)
            except SchemaError as error:
                raise SchemaError(f"{os.fspath(value)}: {error}") from error
        given = RECIPES[str(value)]
        if not isinstance(given, Recipe | Mapping):
            raise SchemaError(f"recipe {str(value)!r}: expected a Recipe or a mapping, got {shown(given)}")
        recipe = cls.of(given)
        return recipe if recipe.name == value else dataclasses.replace(recipe, name=str(value))

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write it to a file.

        Parameters
        ----------
        file : path
            A name that ends in `.json`, `.yaml` or `.yml`.

        Raises
        ------
        SchemaError
            If it ends otherwise.
        """
        if Path(file).suffix not in _FILES:
            raise SchemaError(f"{os.fspath(file)}: expected a name that ends in one of {sorted(_FILES)}")
        Path(file).write_text(document_text(self.to_json(), Path(file).suffix), encoding="utf-8")


_FILES = frozenset({".json", ".yaml", ".yml"})


def read_document(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a mapping from a JSON or YAML file; SchemaError names the file and what is wrong."""
    import yaml

    try:
        text = Path(file).read_text(encoding="utf-8")
        twice = _first_twice(yaml.compose(text, Loader=yaml.SafeLoader))  # JSON is YAML
        if twice is not None:
            raise ValueError(f"the key {twice!r} twice")
        document = yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).replace('in "<unicode string>", ', "").split())
        raise SchemaError(f"{os.fspath(file)}: expected a file of YAML or JSON, got {reason}") from error
    if not isinstance(document, dict):
        raise SchemaError(f"{os.fspath(file)}: expected a mapping of options, got {shown(document)}")
    return document


def _first_twice(node: Any) -> str | None:
    """Return a key that a mapping of a YAML tree holds twice, of which loading would keep the last."""
    pairs = node.value if getattr(node, "id", "") == "mapping" else []
    keys = [key.value for key, _ in pairs]
    inner = [value for _, value in pairs] if pairs else node.value if getattr(node, "id", "") == "sequence" else []
    repeated = next((key for key in keys if keys.count(key) > 1), None)
    return repeated or next((found for found in map(_first_twice, inner) if found), None)


def document_text(document: Mapping[str, Any], suffix: str) -> str:
    """Return a mapping as the text of a JSON or YAML file."""
    import yaml

    if suffix == ".json":
        return json.dumps(document, indent=1) + "\n"
    text: str = yaml.safe_dump(json.loads(json.dumps(document)), sort_keys=False)
    return text


def _check(field: str, part: Part, registry: Registry[Any]) -> None:
    given = _MADE_LATER.get(field, set())
    registry.check(part.name, part.kwargs, given=given)
    options = registry.options(part.name)
    needed = {name for name, default in options.items() if default is inspect.Parameter.empty}
    if lacking := sorted(needed - given - set(part.kwargs)):
        raise SchemaError(f"{registry.kind} {part.name!r} needs {lacking}: write {part.name}:{lacking[0]}=...")


def try_keep(keep: Part, positions: int) -> None:
    """Let a keep rule look at a made-up row of so many patches, so that a value out of its range is told early."""
    rule = KEEP_RULES.make(keep.name, **keep.kwargs)
    measured = "encoded_bytes" in KEEP_RULES.options(keep.name)
    options: dict[str, Any] = {"encoded_bytes": lambda row, keep: 0} if measured else {}
    try:
        rule(np.zeros((1, positions), np.float32), **options)
    except (TypeError, InvalidExemplarError) as error:
        raise SchemaError(f"keep rule {str(keep)!r} has an option that it cannot use: {error}") from error


def _try_text(text: Part) -> None:
    """Let a text rule look at a made-up row of two words and two patches."""
    rule = TEXT_RULES.make(text.name, **text.kwargs)
    valid = {"text": np.ones((1, 2), np.bool_), "image": np.ones((1, 2), np.bool_)}
    pairs = np.zeros((1, 2, 2), np.float32)
    maps = ScoreMaps({name: np.zeros((1, 2), np.float32) for name in valid}, valid, pairs, pairs)
    try:
        rule(maps, valid["image"], ~valid["text"])
    except (TypeError, InvalidExemplarError) as error:
        raise SchemaError(f"text rule {str(text)!r} has an option that it cannot use: {error}") from error


def _try_scorer(scorer: Part) -> None:
    try:
        SCORERS.make(scorer.name, **scorer.kwargs)
    except TypeError as error:
        raise SchemaError(f"scorer {str(scorer)!r} has an option that it cannot use: {error}") from error


def _jpeg(divisor: int) -> Part:
    return Part.of({"name": "scaled", "divisor": divisor})


RECIPES: Registry[Recipe] = Registry(
    "recipe",
    {
        recipe.name: recipe
        for recipe in (
            Recipe(name="masked", image=Part("patches")),
            Recipe(name="foveated", image=Part("scales")),
            Recipe(name="smoothed", image=Part("smoothed")),
            Recipe(name="rate_aware", image=Part("rate")),
            Recipe(name="jpeg", image=_jpeg(1)),
            Recipe(name="half_jpeg", image=_jpeg(2)),
            Recipe(name="third_jpeg", image=_jpeg(3)),
            Recipe(name="quarter_jpeg", image=_jpeg(4)),
            Recipe(name="raw", image=_jpeg(1), codec=Part("raw")),
            Recipe(
                name="hidden",
                image=Part("hidden"),
                keep=Part("top_k", (("k", 8),)),
                codec=Part("pq", (("parts", 128), ("centres", 16))),
            ),
            Recipe(name="features", image=Part("features"), text=Part("none"), codec=Part("scalar", (("bits", 2),))),
            Recipe(name="text", image=Part("none")),
            Recipe(name="none", image=Part("none"), text=Part("none")),
        )
    },
)
"""Recipes by name, as `Recipe.of` and `--recipe` take them."""
