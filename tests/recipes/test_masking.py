"""What is kept of a batch: scores, keep rules that measure, text rules; and what masked exemplars hold."""

import numpy as np
import pytest
from exmem.recipes.whole import resized

from exmem.codecs import get_codec
from exmem.masking import KEEP_RULES, TEXT_RULES
from exmem.masking.scorers import CentreScores
from exmem.recipes import MaskedTokens, Masking
from tests.backbones.models import END
from tests.recipes.cases import LABELS, LENGTH, PATCH, TEXTS, FixedScores, made, masking_of, pictures

JPEG = {"id": "patch_jpeg", "quality": 75}
RISING = np.arange(LENGTH) / LENGTH


@pytest.fixture(scope="module")
def model(backbone):
    return backbone("joint")


@pytest.mark.parametrize("max_bytes", [1, 60, 150, 300, 600, 10_000])
def test_fit_bytes_keeps_as_many_of_the_best_as_fit_the_encoded_bytes(model, max_bytes):
    codec = get_codec(JPEG, shape=(PATCH, PATCH, 3), dtype="uint8")
    masking = Masking(
        model,
        scorer=FixedScores(RISING),
        keep_rule=KEEP_RULES.make("fit_bytes", max_bytes=max_bytes),
        text_rule=TEXT_RULES.make("all"),
        codec=codec,
    )
    masked = masking(pictures(), TEXTS, LABELS)
    for row, own in enumerate(made(MaskedTokens(masking, quality=75))):
        kept = own.tokens["image"]
        count = len(kept)
        assert kept.positions.tolist() == [*range(LENGTH - count, LENGTH)], "the best ones"
        assert len(codec.encode(kept.values)) <= max_bytes or count == 1
        if count < LENGTH:
            more = masked.tokens.tokens["image"].values[row, LENGTH - count - 1 :]
            assert len(codec.encode(more)) > max_bytes


def test_every_row_has_its_own_bytes(model):
    masking = masking_of(model, RISING, keep_rule="fit_bytes", max_bytes=200)
    masking.codec = get_codec(JPEG, shape=(PATCH, PATCH, 3), dtype="uint8")
    flat = pictures()
    flat[1] = 90  # one colour takes few bytes
    kept = masking(flat, TEXTS, LABELS).keep["image"].sum(1)
    assert kept[1] == LENGTH
    assert kept[0] < LENGTH / 2


def test_special_tokens_stay_and_padding_does_not(model):
    masked = masking_of(model, CentreScores(), text_rule="lost_patches")(pictures(), TEXTS, LABELS)
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


def test_a_thumbnail_is_the_whole_picture_made_small(model):
    recipe = MaskedTokens(masking_of(model, RISING, keep_rule="top_k", k=2), quality=75, thumbnail=10)
    spec = recipe.schema().modalities["thumbnail"]
    assert (spec.positions, spec.shape) == (1, (10, 10, 3))
    for picture, own in zip(pictures(), made(recipe), strict=True):
        assert own.tokens["image"].positions.tolist() == [LENGTH - 2, LENGTH - 1]
        np.testing.assert_array_equal(own.tokens["thumbnail"].values[0], resized(picture, (10, 10)))


def test_text_is_kept_only_where_there_is_a_rule_and_a_text(model, backbone):
    assert masking_of(model, RISING).keeps_text
    assert not masking_of(model, RISING, text_rule=None).keeps_text
    assert not masking_of(backbone("vit"), RISING).keeps_text
    assert [*masking_of(model, RISING, text_rule=None)(pictures(), TEXTS, LABELS).keep] == ["image"]


def test_a_picture_that_has_its_size_is_not_scaled_and_others_keep_their_colours():
    picture = pictures()[0]
    assert resized(picture, (32, 48)) is picture
    assert resized(picture, (7, 5)).shape == (7, 5, 3)
    np.testing.assert_array_equal(resized(np.full((8, 12, 3), 77, np.uint8), (5, 31)), 77)
    # Averaging where it gets smaller: a checkerboard of 0 and 200 becomes grey instead of one of its colours.
    board = np.broadcast_to((np.indices((32, 32)).sum(0) % 2 * 200).astype(np.uint8)[..., None], (32, 32, 3))
    assert np.abs(resized(np.ascontiguousarray(board), (8, 8))[2:-2, 2:-2].astype(int) - 100).max() <= 3
