"""Rate-aware exemplars keep the most score within their bytes, measured by encoding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from exmem.codecs import get_codec
from exmem.errors import CodecError, SchemaError
from exmem.recipes.forms.composing import patches_at
from tests.recipes.cases import (
    LABELS,
    LENGTH,
    PRIORITIES,
    SIZE,
    TEXTS,
    bound_of,
    images_of,
    made,
    restored,
    scored,
)

WORD_BYTES = 4
SIDE_OF = {"image_q60": 8, "image_q30": 8, "image_4_q60": 4, "image_4_q30": 4, "image_2_q60": 2, "image_2_q30": 2}
FALLING = np.arange(LENGTH, 0, -1) / LENGTH


@pytest.fixture(scope="module")
def model(backbone):
    return backbone("joint")


@pytest.fixture(scope="module")
def images(backbone):
    return backbone("vit")


def rate_of(model, max_bytes, scores=FALLING, *, factors=(1, 2, 4), qualities=(30, 60), text_weight=1.0, **parts):
    options = {"factors": factors, "qualities": qualities, "text_weight": text_weight}
    bound = bound_of("rate_aware", model, image={"name": "rate", "max_bytes": max_bytes, **options}, **parts)
    return bound if scores is None else scored(bound, scores)


def codecs(bound):
    specs = {name: spec for name, spec in bound.schema.modalities.items() if name != "text"}
    return {name: get_codec(spec.codec, shape=spec.shape, dtype=spec.dtype) for name, spec in specs.items()}


def patches(exemplar):
    """Positions by modality of what is held of the image."""
    return {name: own.positions.tolist() for name, own in exemplar.tokens.items() if name != "text" and len(own)}


def payload_bytes(bound, exemplar):
    """Bytes that a memory would store: what is empty takes none."""
    of = codecs(bound)
    image = sum(len(of[name].encode(exemplar.tokens[name].values)) for name in patches(exemplar))
    return image + WORD_BYTES * len(exemplar.tokens.get("text", ()))


def kept_value(bound, exemplar, image, scores=FALLING):
    """What the docstring says is kept of the image, computed patch by patch."""
    full, total = patches_at(image, bound.backbone.grid, 8).astype(float), 0.0
    for name, places in patches(exemplar).items():
        codec, own = codecs(bound)[name], exemplar.tokens[name]
        for place, value in zip(places, own.values, strict=True):
            stored = codec.decode(codec.encode(value[None]))[0]
            shown = np.asarray(Image.fromarray(stored).resize((8, 8), Image.Resampling.BICUBIC)).astype(float)
            variation = ((full[place] - full.mean((0, 1, 2))) ** 2).sum()
            better = variation - ((shown - full[place]) ** 2).sum()
            total += scores[place] / scores.sum() * max(better, 0) / (variation + 8 * 8 * 3)
    return total


@settings(max_examples=25)
@given(max_bytes=st.integers(1, 3000), quality=st.sampled_from([(30,), (60, 30), (90,)]), text=st.booleans())
def test_what_is_encoded_is_never_more_than_the_bytes(model, max_bytes, quality, text):
    bound = rate_of(model, max_bytes, qualities=quality, text="all" if text else "none")
    for own in made(bound, rows=slice(2)):
        assert payload_bytes(bound, own) <= max_bytes
        assert len({name.rsplit("_q")[1] for name in patches(own)}) <= 1, "one quality"
        held = [place for places in patches(own).values() for place in places]
        assert len(held) == len({*held}), "one scale"


@pytest.mark.parametrize("row", range(4))
def test_more_bytes_never_lower_the_kept_value(images, row):
    values = []
    for max_bytes in (20, 40, 80, 120, 160, 240, 320, 480, 640, 960, 1280, 2560):
        bound = rate_of(images, max_bytes)
        (own,) = made(bound, rows=slice(row, row + 1))
        values.append(kept_value(bound, own, images_of()[row]))
    assert values == sorted(values)
    assert values[0] > 0
    assert values[-1] > 0.75, "JPEG of quality 60 loses the rest"


def test_bytes_without_end_keep_every_patch_that_holds_anything_at_its_best(images):
    bound = rate_of(images, 10**6)
    (own,) = made(bound, rows=slice(1))
    assert sum(map(len, patches(own).values())) == LENGTH
    best = kept_value(bound, own, images_of()[0])
    for quality in (30, 60):
        fine = rate_of(images, 10**6, factors=(1,), qualities=(quality,))
        assert kept_value(fine, made(fine, rows=slice(1))[0], images_of()[0]) <= best + 1e-9


def test_words_come_first_and_the_better_ones_before_the_others(model):
    # Text 2 has seven tokens; the centre scores of a text fall from its first token to its last, which has
    # no share of the score at all. Each of the three scales counts a byte for being empty.
    for max_bytes, count in ((4, 1), (8 + 3, 2)):
        (own,) = made(rate_of(model, max_bytes), rows=slice(2, 3))
        assert own.tokens["text"].positions.tolist() == [*range(count)]
        assert not patches(own)
    (own,) = made(rate_of(model, 100), rows=slice(2, 3))
    assert len(own.tokens["text"]) == 6
    assert patches(own)
    (own,) = made(rate_of(model, 40, text_weight=0.0), rows=slice(2, 3))
    assert len(own.tokens["text"]) == 0, "text that is worth nothing takes no bytes"
    assert patches(own)


def test_only_words_that_the_text_rule_keeps_are_candidates(model):
    options = {"factors": (1, 2), "qualities": (60,), "text": "lost_patches", "scorer": "centre"}
    bound = rate_of(model, 2000, None, **options)
    allowed = bound.masking(images_of(), TEXTS, LABELS).keep["text"]
    for row, own in enumerate(bound.make(images_of(), TEXTS, LABELS, PRIORITIES)):
        assert {*own.tokens["text"].positions.tolist()} <= {*np.flatnonzero(allowed[row]).tolist()}
        assert len(own.tokens["text"])


def test_equal_scores_and_scores_below_zero_are_shared_out_too(images):
    for scores in (np.zeros(LENGTH), np.ones(LENGTH), np.full(LENGTH, -2.0)):
        found = [patches(own) for own in made(rate_of(images, 300, scores))]
        assert found == [patches(own) for own in made(rate_of(images, 300, np.ones(LENGTH)))]
        assert all(found)
    centre = made(rate_of(images, 150, None, scorer="centre"))
    inner, corners = {8, 9, 14, 15}, {0, 5, 18, 23}
    for own in centre:
        held = {place for places in patches(own).values() for place in places}
        assert held & inner
        assert not held & corners, "the lowest score has no share"


def test_a_score_that_is_alone_takes_its_patch_first(images):
    scores = np.zeros(LENGTH)
    scores[7] = 1
    for max_bytes in (40, 500):
        for own in made(rate_of(images, max_bytes, scores)):
            assert [*patches(own).values()] == [[7]], "others are worth nothing"


def test_patches_of_the_mean_colour_go_first(images):
    mixed = images_of()[:1].copy()
    mixed[0, :16] = mixed[0, 16:].mean((0, 1)).round().astype(np.uint8)  # so it is the mean of the whole image
    (own,) = rate_of(images, 150, np.ones(LENGTH)).make(mixed, [""], LABELS[:1], PRIORITIES[:1])
    held = {place for places in patches(own).values() for place in places}
    assert held
    assert held <= {*range(12, 24)}


@pytest.mark.parametrize("qualities", [(30, 60), (60, 30), (60,)])
def test_one_token_stays_where_one_fits(images, model, qualities):
    plain = np.full((1, *SIZE, 3), 130, np.uint8)
    for bound in (rate_of(images, max_bytes, qualities=qualities) for max_bytes in (6, 400)):
        (own,) = bound.make(plain, [""], LABELS[:1], PRIORITIES[:1])
        assert [*patches(own).values()] == [[0]], "of one colour: the best score at the fewest bytes"
        assert restored(bound, [own]).tokens["image"].valid.tolist() == [[True]]
    smallest = min(
        len(codec.encode(one[None]))
        for name, codec in codecs(rate_of(images, 1, qualities=qualities)).items()
        for one in patches_at(images_of()[0], images.grid, SIDE_OF[name])
    )
    for max_bytes in range(smallest - 1, smallest + 4):
        bound = rate_of(images, max_bytes, qualities=qualities)
        (own,) = made(bound, rows=slice(1))
        assert bool(patches(own)) == (smallest <= max_bytes)
        assert payload_bytes(bound, own) <= max_bytes
    (own,) = made(rate_of(model, 3, qualities=qualities), rows=slice(1))
    assert not len(own.tokens["text"]), "a word takes four bytes"


def test_real_scores_are_used_and_the_keep_rule_is_not(images):
    found = [patches(own) for own in made(rate_of(images, 200, None))]
    assert found != [patches(own) for own in made(rate_of(images, 200))]
    with pytest.raises(SchemaError, match="keep 'top_k:k=2' has no effect with image 'rate:"):
        rate_of(images, 200, None, keep="top_k:k=2")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"factors": (2, 1)}, "falling sides"),
        ({"qualities": ()}, r"different qualities, got \[\]"),
        ({"qualities": (60, 60)}, "different qualities"),
        ({"max_bytes": 0}, r"must be an integer of 1\.\..* got 0"),
        ({"text_weight": -1.0}, "text_weight must be 0 or more"),
        ({"text_weight": float("nan")}, "text_weight must be 0 or more"),
    ],
)
def test_options_out_of_range_are_named(images, wrong, message):
    with pytest.raises(SchemaError, match=message):
        rate_of(images, **({"max_bytes": 100} | wrong))
    with pytest.raises(CodecError, match="quality"):
        rate_of(images, 100, qualities=(0,))
