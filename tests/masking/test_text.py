"""Text rules."""

import dataclasses

import numpy as np
import pytest

from exmem.errors import InvalidExemplarError, SchemaError
from exmem.masking import TEXT_RULES, ScoreMaps

# Two patches, the second is lost; [CLS], four words, [SEP], one place without a token.
KEEP = np.array([[True, False]])
SPECIAL = np.array([[True, False, False, False, False, True, False]])
VALID = np.array([[True] * 6 + [False]])
MAPS = ScoreMaps(
    {"image": np.array([[1, 0]], np.float32), "text": np.array([[9, 0.8, 0.1, 0.1, 0.1, 9, 0]], np.float32)},
    {"image": np.ones((1, 2), np.bool_), "text": VALID},
    text_to_image=np.array([[[0, 9], [0, 0.1], [0, 0.9], [0.9, 0.1], [0, 0.1], [0, 9], [0, 0]]], np.float32),
    image_to_text=np.array([[[0, 0, 0, 0, 0.9, 0, 0], [9, 0.1, 0.1, 0.6, 0.2, 9, 0]]], np.float32),
)


def kept(**options):
    return np.flatnonzero(TEXT_RULES.make("lost_patches", **options)(MAPS, KEEP, SPECIAL)[0]).tolist()


def test_words_that_the_class_token_or_the_lost_patches_point_to_are_kept():
    assert kept() == [0, 1, 2, 5]  # 1 by the class token; 2 looks at the lost patch, 3 at the kept one
    assert kept(direction="image_to_text") == [0, 1, 3, 5]  # the lost patch looks at 3, the kept one at 4
    assert kept(direction="both") == [0, 1, 2, 3, 5]


def test_thresholds_are_multiples_of_the_mean_over_the_words():
    assert kept(cls_threshold=0.3) == [0, 1, 2, 3, 4, 5]  # mean 0.275: 0.1 is above 0.0825
    assert kept(lost_threshold=0.3) == [0, 1, 2, 3, 4, 5]  # mean 0.3
    assert kept(direction="image_to_text", lost_threshold=0.7) == [0, 1, 3, 4, 5]  # mean 0.25: 0.2 is above 0.175
    assert kept(cls_threshold=99, lost_threshold=99) == [0, 1, 2, 5]  # the best word of each stays


def test_all_and_none_mean_it():
    assert TEXT_RULES.make("all")(MAPS, KEEP, SPECIAL).tolist() == VALID.tolist()
    assert not TEXT_RULES.make("none")(MAPS, KEEP, SPECIAL).any()


def test_a_share_of_the_words_is_kept_by_score_alone():
    def share(ratio):
        return np.flatnonzero(TEXT_RULES.make("keep_ratio", ratio=ratio)(MAPS, KEEP, SPECIAL)[0]).tolist()

    assert share(0.25) == [0, 1, 5]
    assert share(0.5) == [0, 1, 2, 5]  # ties go by position
    assert share(1.0) == [0, 1, 2, 3, 4, 5]


def test_a_text_without_words_keeps_its_special_tokens():
    maps = dataclasses.replace(MAPS, valid={**MAPS.valid, "text": SPECIAL})
    assert TEXT_RULES.make("lost_patches")(maps, KEEP, SPECIAL).tolist() == SPECIAL.tolist()


def test_what_is_missing_or_unknown_is_named():
    with pytest.raises(SchemaError, match=r"unknown direction 'up'; choose one of .*'both'"):
        kept(direction="up")
    with pytest.raises(SchemaError, match=r"unknown text rule 'some'; choose one of .*'none'"):
        TEXT_RULES.make("some")
    apart = dataclasses.replace(MAPS, image_to_text=None)
    with pytest.raises(InvalidExemplarError, match="needs image_to_text"):
        TEXT_RULES.make("lost_patches", direction="both")(apart, KEEP, SPECIAL)
