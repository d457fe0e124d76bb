"""A recipe is data: through JSON, YAML, files and names, with every mistake told beside the known ones."""

import dataclasses
import inspect
import json
import math

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import exmem.registry
from exmem.codecs import CODECS
from exmem.errors import ExmemError, SchemaError
from exmem.masking import KEEP_RULES, TEXT_RULES, ScoreMaps
from exmem.masking.scorers import SCORERS
from exmem.recipes import EXTRAS, FILLS, FORMS, RECIPES, BoundRecipe, PlainImages, Recipe
from exmem.recipes.forms import Scaled
from exmem.registry import Part

# An option that must be given, and others beside their defaults: enough for every option of every part.
GIVEN = {
    "coarse": st.integers(1, 8),
    "cls_threshold": st.floats(0, 4),
    "direction": st.sampled_from(["text_to_image", "image_to_text", "both"]),
    "divisor": st.integers(1, 8) | st.floats(1, 8),
    "factor": st.floats(0, 4),
    "factors": st.lists(st.integers(1, 9), min_size=3, max_size=3),
    "fuse": st.booleans(),
    "k": st.integers(1, 100),
    "layer": st.none() | st.integers(0, 2**14),
    "layers": st.none() | st.lists(st.integers(-12, 11), min_size=1, max_size=3),
    "lost_threshold": st.floats(0, 4),
    "mass": st.floats(0.01, 1),
    "max_bytes": st.integers(1, 10**6),
    "qualities": st.lists(st.integers(1, 95), min_size=1, max_size=3, unique=True),
    "ratio": st.floats(0.01, 1),
    "seed": st.integers(0, 2**32),
    "shares": st.lists(st.floats(0, 0.5), min_size=2, max_size=2),
    "text_weight": st.floats(0, 9),
    "threshold": st.floats(0, 1),
    "thumbnail": st.integers(0, 64),
}
MADE_LATER = {"objective", "valid", "encoded_bytes"}


@st.composite
def parts(draw, registry):
    name = draw(st.sampled_from([*registry]))
    known = registry.options(name)
    needed = {key for key, default in known.items() if default is inspect.Parameter.empty}
    chosen = draw(st.sets(st.sampled_from(sorted(known)))) if known else set()
    return {"name": name, **{key: draw(GIVEN[key]) for key in sorted((chosen | needed) - MADE_LATER)}}


@st.composite
def recipes(draw):
    image = draw(parts(FORMS))
    fills = sorted({*FILLS} - ({"thumbnail"} if not image.get("thumbnail") else set()))
    stored = Recipe(image=image, text=draw(parts(TEXT_RULES)))
    others = {
        "scorer": parts(SCORERS),
        "keep": parts(KEEP_RULES),
        "codec": st.sampled_from(["patch_jpeg", "raw", "lossless"]),
        "fill": st.sampled_from(fills),
    }
    return stored.refined(
        name=draw(st.text(max_size=12)),
        extras=draw(st.lists(st.sampled_from(EXTRAS), unique=True)),
        **{name: draw(part) for name, part in others.items() if name not in stored.unused},
    )


def assert_round_trips(recipe):
    document = json.loads(json.dumps(recipe.to_json()))
    assert Recipe.from_json(document) == recipe
    assert Recipe.of(document) == recipe
    assert Recipe.from_json(yaml.safe_load(yaml.safe_dump(document))) == recipe
    assert Recipe.from_json(dataclasses.asdict(recipe) | {"image": str(recipe.image)} | texts(recipe)) == recipe


def texts(recipe):
    """Every part as the command line writes it."""
    return {name: str(getattr(recipe, name)) for name in ("image", "scorer", "keep", "text", "codec", "fill")}


@pytest.mark.parametrize("name", RECIPES)
def test_a_named_recipe_goes_through_json_yaml_and_the_text_of_its_parts(name):
    assert Recipe.of(name).name == name
    assert Recipe.of(RECIPES[name]) is RECIPES[name]
    assert_round_trips(Recipe.of(name))


@given(recipe=recipes())
def test_any_recipe_goes_through_json_yaml_and_the_text_of_its_parts(recipe):
    assert_round_trips(recipe)
    assert recipe.refined() == recipe
    assert hash(recipe) == hash(Recipe.from_json(recipe.to_json()))


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".yml"])
def test_a_recipe_is_read_from_the_file_that_it_was_saved_in(tmp_path, suffix):
    recipe = Recipe.of("masked").refined(
        name="mine", scorer="cls_attention:layers=[-3,-2]", text="lost_patches:direction=both", extras=["logits"]
    )
    recipe.save(tmp_path / f"other{suffix}")
    assert Recipe.of(tmp_path / f"other{suffix}") == Recipe.of(str(tmp_path / f"other{suffix}")) == recipe


def test_a_file_of_a_few_lines_is_a_recipe_of_its_own_name(tmp_path):
    (tmp_path / "quarter.yaml").write_text("image: {name: scaled, divisor: 4}\ncodec: patch_webp\n")
    assert Recipe.of(tmp_path / "quarter.yaml") == Recipe(name="quarter", image="scaled:divisor=4", codec="patch_webp")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "expected a mapping of options"),
        ("a: [", "of YAML or JSON"),
        ("imge: scaled\n", r"keys \['imge'\]"),
        ("codec: raw\nfill: drop\ncodec: patch_jpeg\n", "the key 'codec' twice"),
        ('{"image": {"name": "scaled", "divisor": 2, "divisor": 4}}', "the key 'divisor' twice"),
    ],
)
def test_a_file_that_is_no_recipe_is_named(tmp_path, text, message):
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(SchemaError, match=message):
        Recipe.of(tmp_path / "wrong.yaml")
    with pytest.raises(SchemaError, match=r"none\.json"):
        Recipe.of(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"imge": "scaled"},
            r"unknown keys \['imge'\]; known are \['name', 'image', 'scorer', 'keep', 'text', 'codec'",
        ),
        (
            {"image": "scale"},
            r"unknown image form 'scale'; choose one of \['features', 'hidden', 'none', 'patches', 'rate', 'scaled'",
        ),
        ({"image": "scaled:divider=2"}, r"image form 'scaled' has no option \['divider'\]; it has \['divisor'\]"),
        ({"image": "none:divisor=2"}, "image form 'none' has no option"),
        ({"scorer": "clss"}, r"unknown scorer 'clss'; choose one of \['attention_rollout'"),
        ({"scorer": "grad_attention:objective=1"}, r"no option \['objective'\]; it has \['layers'\]"),
        ({"keep": "top"}, r"unknown keep rule 'top'; choose one of \['cumulative'"),
        ({"keep": "top_k:n=3"}, r"keep rule 'top_k' has no option \['n'\]; it has \['k'\]"),
        ({"keep": "top_k"}, r"keep rule 'top_k' needs \['k'\]: write top_k:k="),
        ({"text": "keep_ratio"}, r"text rule 'keep_ratio' needs \['ratio'\]"),
        ({"text": "words"}, r"unknown text rule 'words'; choose one of \['all'"),
        ({"fill": "grey"}, r"unknown fill 'grey'; choose one of \['class_mean', 'drop'"),
        ({"fill": "thumbnail"}, "needs a stored one: image 'patches:thumbnail=28'"),
        ({"codec": "jpg"}, r"codec: unknown 'jpg'; choose one of \['exmem\."),
        ({"extras": ["logit"]}, r"extras: expected some of \['features', 'logits'\], got"),
        ({"extras": "logits"}, "extras: expected some of"),
        ({"extras": 3}, "extras: expected some of"),
        ({"extras": [["logits"]]}, "extras: expected some of"),
        ({"name": 3}, "expected text as name"),
        ({"image": 3}, "expected NAME, NAME:OPTION=VALUE"),
        ({"image": "scaled:divisor=0"}, "divisor must be 1 or more"),
        ({"image": "scaled:divisor=two"}, "divisor must be a number"),
        ({"image": "smoothed:coarse=two"}, "coarse must be an integer"),
        ({"image": 'scales:factors=["a",2,4]'}, "each of the factors must be a number"),
        ({"image": "scales:factors=abc"}, "expected one factor or more, got 'abc'"),
        ({"image": "rate:factors=[]"}, "expected one factor or more"),
        ({"image": 'rate:qualities=["high"]'}, "each quality must be an integer"),
        ({"image": "scales:factors=3"}, "has an option of another kind"),
        ({"image": {"name": "scales", "shares": ["a", "b"]}}, "each share must be a number"),
        ({"image": "rate:qualities=30"}, "has an option of another kind"),
        ({"image": "hidden:layer=-1"}, "layer must be an integer of 0"),
        ({"image": "hidden:layer=one"}, "layer must be an integer of 0"),
        ({"image": "hidden:fuse=1"}, "fuse must be"),
    ],
)
def test_what_is_unknown_or_no_option_is_told_with_the_known_ones(changes, message):
    with pytest.raises(SchemaError, match=message):
        Recipe.of("masked").refined(**changes)


def test_an_unknown_name_lists_the_recipes():
    with pytest.raises(
        SchemaError,
        match=r"unknown recipe 'maskd'; choose one of \['features', 'foveated', 'half_jpeg', 'hidden', 'jpeg'",
    ):
        Recipe.of("maskd")
    for wrong in (3, None, ["masked"]):
        with pytest.raises(SchemaError, match="expected the name of a recipe, a file or a mapping"):
            Recipe.of(wrong)


def test_a_refined_recipe_has_the_other_parts_and_its_name():
    masked = Recipe.of("masked")
    other = masked.refined(keep="top_k:k=3", codec={"name": "patch_jpeg", "quality": 50})
    assert (other.name, other.image, other.scorer) == ("masked", masked.image, masked.scorer)
    assert (other.keep, other.codec.kwargs) == (Part("top_k", (("k", 3),)), {"quality": 50})
    assert Recipe.of("masked") == masked


WITHOUT_EFFECT = [
    ({"image": "scaled", "scorer": "random"}, "scorer 'random'", "['hidden', 'patches', 'rate', 'scales', 'smoothed']"),
    ({"image": "scaled", "keep": "keep_ratio:ratio=0.5"}, "keep 'keep_ratio:ratio=0.5'", "'smoothed']"),
    ({"image": "scaled", "text": "lost_patches", "keep": "top_k:k=2"}, "keep 'top_k:k=2'", "'smoothed']"),
    ({"image": "rate", "keep": "top_k:k=2"}, "keep 'top_k:k=2'", "['hidden', 'patches', 'scales', 'smoothed']"),
    (
        {"image": "none", "codec": "raw"},
        "codec 'raw'",
        "['features', 'hidden', 'patches', 'rate', 'scaled', 'scales', 'smoothed']",
    ),
]


@pytest.mark.parametrize(("parts", "part", "forms"), WITHOUT_EFFECT, ids=str)
def test_a_part_without_effect_is_refused_with_the_image_forms_that_use_it(parts, part, forms):
    with pytest.raises(SchemaError) as refused:
        Recipe.from_json(parts)
    message = str(refused.value)
    assert message.startswith(f"{part} has no effect with image ")
    assert forms in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "parts",
    [
        {"image": "scaled", "text": "lost_patches", "scorer": "random"},
        {"image": "none", "text": "keep_ratio:ratio=0.5", "scorer": "random"},
        {"image": "rate", "text": "lost_patches", "keep": "top_k:k=2"},
    ],
    ids=str,
)
def test_a_part_that_the_text_rule_needs_is_taken(parts):
    assert Recipe.from_json(parts).unused.isdisjoint(parts)


def test_only_a_recipe_without_image_and_text_stores_nothing():
    assert [name for name in RECIPES if Recipe.of(name).is_empty] == ["none"]
    assert [name for name in RECIPES if Recipe.of(name).level == "none"] == ["none", "text"]
    assert isinstance(Recipe.of("jpeg").form(), Scaled)


def test_a_recipe_that_is_added_has_the_name_it_is_added_by():
    RECIPES.add("mine", Recipe(image="patches"))
    assert (Recipe.of("mine").name, Recipe.of("mine").level) == ("mine", "pixels")


def test_a_form_of_ones_own_is_used_by_name_once_it_is_added_or_offered_by_a_package(monkeypatch):
    class Tiny(Scaled):
        """An eighth of the side."""

        divisor = 8

    monkeypatch.setattr(FORMS, "_parts", dict(FORMS._parts))
    with pytest.raises(SchemaError, match="unknown image form 'tiny'"):
        Recipe(image="tiny")
    FORMS.add("tiny", Tiny)
    bound = BoundRecipe(Recipe(image="tiny:divisor=8", codec="raw"), PlainImages(size=32, patch=8))
    assert bound.schema.modalities["image"].shape == (4, 4, 3)
    monkeypatch.setattr(KEEP_RULES, "_others", None)
    monkeypatch.delattr(KEEP_RULES, "_others")
    entry = exmem.registry.EntryPoint("most", "exmem.masking.keep:top_k", "exmem.keep_rule")
    monkeypatch.setattr(exmem.registry, "entry_points", lambda group: [entry] if group == entry.group else [])
    assert Recipe(image="patches", keep="most:k=2").keep.kwargs == {"k": 2}


def test_a_scorer_of_ones_own_scores_plain_images_if_it_looks_into_no_backbone():
    def brightest(model, batch, *, hidden=None):
        image = batch.tokens["image"]
        return ScoreMaps({"image": image.values.float().mean((2, 3, 4)).numpy()}, {"image": image.valid.numpy()})

    def deep(model, batch, *, hidden=None, layers=(-1,)):
        raise AssertionError("it has no layers to look into")

    SCORERS.add("brightest", brightest)
    SCORERS.add("deep", deep)
    recipe, plain = Recipe.of("masked").refined(scorer="brightest", keep="top_k:k=2"), PlainImages(size=32, patch=8)
    images = np.zeros((1, 32, 32, 3), np.uint8)
    images[0, 8:16, :16] = 200  # the first two patches of the second row
    (exemplar,) = BoundRecipe(recipe, plain).make(images, None, labels=[0])
    assert exemplar.tokens["image"].positions.tolist() == [4, 5]
    with pytest.raises(SchemaError, match="'deep' needs a backbone"):
        BoundRecipe(recipe.refined(scorer="deep"), plain)


def test_options_are_tried_when_a_recipe_is_bound_and_not_in_the_middle_of_a_run():
    plain = PlainImages(size=32, patch=8)
    for changes, message in (
        ({"keep": "top_k:k=17"}, "k must be"),
        ({"keep": "top_k:k=two"}, "keep rule 'top_k:k=two' has an option that it cannot use"),
        ({"keep": "mean_threshold:factor=x"}, "has an option that it cannot use"),
        ({"scorer": "random:seed=-1"}, "seed must be an integer"),
        ({"codec": "patch_jpeg:quality=101"}, "quality must be an integer"),
        ({"codec": "pq"}, "takes float16, float32 or float64"),
        ({"scorer": "cls_attention"}, "needs a backbone"),
        ({"fill": "mask_token"}, "has none here; choose another fill"),
        ({"extras": ["logits"]}, "bind it with num_classes="),
        ({"image": "scales:factors=[1,100,200]"}, "falling sides"),
    ):
        with pytest.raises(ExmemError, match=message):
            BoundRecipe(Recipe.of("masked").refined(**({"scorer": "centre"} | changes)), plain)
    assert math.isclose(BoundRecipe(Recipe.of("half_jpeg"), plain).restore.frame.size[0], 32)
    assert {f"exmem.{name}" for name in ("patch_jpeg", "raw", "lossless")} <= {*CODECS}
