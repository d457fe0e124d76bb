"""What is kept of a batch: scores, keep rules that measure, text rules; and what masked exemplars hold."""

import numpy as np
import pytest

from exmem.codecs import get_codec
from exmem.recipes.forms.scaled import resized
from tests.backbones.models import END
from tests.recipes.cases import LABELS, LENGTH, PATCH, TEXTS, bound_of, images_of, made, scored

JPEG = {"id": "patch_jpeg", "quality": 90}
RISING = np.arange(LENGTH) / LENGTH


@pytest.fixture(scope="module")
def model(backbone):
    return backbone("joint")


@pytest.mark.parametrize("max_bytes", [1, 60, 150, 300, 600, 10_000])
def test_fit_bytes_keeps_as_many_of_the_best_as_fit_the_encoded_bytes(model, max_bytes):
    codec = get_codec(JPEG, shape=(PATCH, PATCH, 3), dtype="uint8")
    bound = scored(bound_of("masked", model, keep=f"fit_bytes:max_bytes={max_bytes}"), RISING)
    masked = bound.masking(images_of(), TEXTS, LABELS)
    for row, own in enumerate(made(bound)):
        kept = own.tokens["image"]
        count = len(kept)
        assert kept.positions.tolist() == [*range(LENGTH - count, LENGTH)], "the best ones"
        assert len(codec.encode(kept.values)) <= max_bytes or count == 1
        if count < LENGTH:
            more = masked.tokens.tokens["image"].values[row, LENGTH - count - 1 :]
            assert len(codec.encode(more)) > max_bytes


def test_every_row_has_its_own_bytes(model):
    masking = scored(bound_of("masked", model, keep="fit_bytes:max_bytes=300"), RISING).masking
    flat = images_of()
    flat[1] = 90  # one colour takes few bytes
    kept = masking(flat, TEXTS, LABELS).keep["image"].sum(1)
    assert kept[1] == LENGTH
    assert kept[0] < LENGTH / 2


def test_special_tokens_stay_and_padding_does_not(model):
    masking = bound_of("masked", model, scorer="centre", text="lost_patches").masking
    masked = masking(images_of(), TEXTS, LABELS)
    tokens = masked.tokens.tokens["text"]
    for row in range(len(TEXTS)):
        words = masked.words(row)
        count = int(tokens.valid[row].sum())
        assert words.positions[0] == 0
        assert words.positions[-1] == count - 1
        assert words.values[-1] == END
        assert words.values.dtype == np.int32
    assert len(masked.words(2)) < 7, "of five words, some went"
    assert masked.words(3).positions.tolist() == [0, 1], "an empty text is its two special tokens"


def test_a_thumbnail_is_the_whole_image_made_small(model):
    bound = scored(bound_of("masked", model, keep="top_k:k=2", image="patches:thumbnail=10"), RISING)
    spec = bound.schema.modalities["thumbnail"]
    assert (spec.positions, spec.shape) == (1, (10, 10, 3))
    for image, own in zip(images_of(), made(bound), strict=True):
        assert own.tokens["image"].positions.tolist() == [LENGTH - 2, LENGTH - 1]
        np.testing.assert_array_equal(own.tokens["thumbnail"].values[0], resized(image, (10, 10)))


def test_text_is_kept_only_where_there_is_a_rule_and_a_text(model, backbone):
    for bound, kept in (
        (bound_of("masked", model), ["image", "text"]),
        (bound_of("masked", model, text="none"), ["image"]),
        (bound_of("masked", backbone("vit")), ["image"]),
    ):
        assert [*bound.masking(images_of(), TEXTS, LABELS).keep] == kept
        assert [*bound.schema.modalities] == kept


def test_a_scorer_is_asked_only_where_the_form_or_the_text_rule_looks_at_scores(model):
    for name, text, is_asked in (
        ("masked", "all", True),
        ("half_jpeg", "all", False),
        ("half_jpeg", "none", False),
        ("half_jpeg", "lost_patches", True),
        ("text", "all", False),
        ("text", "keep_ratio:ratio=0.5", True),
    ):
        assert (bound_of(name, model, text=text).masking.scorer is not None) == is_asked, (name, text)


def test_an_image_that_has_its_size_is_not_scaled_and_others_keep_their_colours():
    image = images_of()[0]
    assert resized(image, (32, 48)) is image
    assert resized(image, (7, 5)).shape == (7, 5, 3)
    np.testing.assert_array_equal(resized(np.full((8, 12, 3), 77, np.uint8), (5, 31)), 77)
    # Averaging where it gets smaller: a checkerboard of 0 and 200 becomes grey instead of one of its colours.
    board = np.broadcast_to((np.indices((32, 32)).sum(0) % 2 * 200).astype(np.uint8)[..., None], (32, 32, 3))
    assert np.abs(resized(np.ascontiguousarray(board), (8, 8))[2:-2, 2:-2].astype(int) - 100).max() <= 3
