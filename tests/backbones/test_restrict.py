"""A backbone that is told to see one modality only."""

import pytest
import torch

from exmem.backbones import BACKBONES
from exmem.errors import SchemaError
from exmem.masking.scorers import SCORERS
from exmem.tokens.tensors import TensorBatch
from tests.backbones.models import WIDTH, load, whole

BOTH = ["clip", "joint", "siglip", "vilt"]


def part_of(size, name):
    """The part of a feature of image and text that is about one of them."""
    width = WIDTH if size == 3 * WIDTH else size // 2  # image and text stand last; a class token before them
    return torch.arange(size).split(width)[("image", "text").index(name) - 2]


@pytest.mark.parametrize("kept", ["image", "text"])
@pytest.mark.parametrize("kind", BOTH)
def test_it_makes_tokens_of_that_modality_only_and_features_have_no_part_for_the_other(kind, kept, written):
    backbone = load(kind, written[kind])
    both, other = whole(backbone), {"image": "text", "text": "image"}[kept]
    size = backbone.feature_dim
    expected = backbone(TensorBatch({kept: both.tokens[kept]}, both.labels))
    assert not expected[:, part_of(size, other)].any()
    backbone.restrict(kept)
    assert [*backbone.token_specs()] == [kept]
    batch = whole(backbone)
    assert [*batch.tokens] == [kept]
    assert torch.equal(batch.tokens[kept].values, both.tokens[kept].values)
    found, others = backbone(batch), torch.ones(size, dtype=torch.bool)
    others[part_of(size, other)] = False
    assert found.shape == (2, backbone.feature_dim) == (2, int(others.sum()))
    assert found.abs().max() > 0.01
    torch.testing.assert_close(found, expected[:, others], rtol=0, atol=0)


@pytest.mark.parametrize("kind", BOTH)
def test_it_can_be_undone(kind, written):
    backbone = load(kind, written[kind])
    expected = backbone(whole(backbone))
    backbone.restrict("text")
    backbone.restrict("image", "text")
    torch.testing.assert_close(backbone(whole(backbone)), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kind", "kept"),  # two towers have attention to images only
    [*((kind, "image") for kind in BOTH), ("joint", "text"), ("vilt", "text")],
)
@pytest.mark.parametrize("scorer", sorted(SCORERS))
def test_every_scorer_scores_what_is_left(scorer, kind, kept, written):
    backbone = load(kind, written[kind])
    backbone.restrict(kept)
    maps = SCORERS.make(scorer)(backbone, whole(backbone))
    assert [*maps.scores] == [*maps.valid] == [kept]
    assert maps.valid[kept].any()
    assert maps.text_to_image is None


@pytest.mark.parametrize("kind", sorted(BACKBONES))
def test_what_it_cannot_see_is_refused_and_what_it_sees_is_listed(kind, written):
    backbone = load(kind, written[kind])
    for wrong in ((), ("audio",), ("image", "audio"), *([("image",)] if kind == "bert" else [])):
        with pytest.raises(SchemaError, match=rf"sees \['{backbone.modalities[0]}'"):
            backbone.restrict(*wrong)
    assert {*backbone.token_specs()} == {*backbone.modalities}
