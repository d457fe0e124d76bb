"""Tokens are dropped by ratio; special ones stay."""

import pytest
import torch

from exmem.errors import SchemaError
from exmem.replay.augment import TokenDropout
from exmem.tokens.tensors import TensorBatch, TokenTensors
from tests.replay.augment.cases import batch, generator

CLS, SEP = 1, 2


def texts():
    """Two texts: CLS, four words, SEP; and CLS, SEP alone."""
    values = torch.tensor([[CLS, 11, 12, 13, 14, SEP], [CLS, SEP, 0, 0, 0, 0]], dtype=torch.int32)
    keep = values > 0
    positions = torch.arange(6).expand(2, 6).masked_fill(~keep, 0)
    return TensorBatch({"text": TokenTensors(values, positions, keep)}, torch.tensor([0, 0]))


@pytest.mark.parametrize(("ratio", "left"), [(0.0, 4), (0.25, 3), (0.5, 2), (1.0, 0)])
def test_the_ratio_of_the_words_is_dropped_and_special_tokens_stay(ratio, left):
    dropout = TokenDropout(ratio=ratio, modalities=("text",), protected_ids=(CLS, SEP))
    found = dropout(texts(), generator=generator()).tokens["text"]
    assert found.valid.sum(1).tolist() == [left + 2, 2]
    assert found.values.shape[1] == left + 2, "no wider than the longest row"
    assert found.values[0, 0] == CLS
    assert found.values[0, left + 1] == SEP
    assert found.values[1, :2].tolist() == [CLS, SEP]


def test_one_token_stays_when_all_are_to_be_dropped():
    found = TokenDropout(ratio=1.0, modalities=("text",))(texts(), generator=generator()).tokens["text"]
    assert found.valid.tolist() == [[True], [True]]
    lone = {
        int(
            TokenDropout(ratio=1.0)(batch([2], [0], names=("image",), whole=True), generator=generator(seed))
            .tokens["image"]
            .positions[0, 0]
        )
        for seed in range(20)
    }
    assert len(lone) > 10, "which one is drawn"


def test_each_exemplar_is_drawn_and_each_modality_for_itself():
    given = batch(list(range(40)), [0] * 40, names=("image", "text"), whole=True)
    dropout = TokenDropout(ratio=0.5, probability=0.5, modalities=("image", "text", "audio"))
    found = dropout(given, generator=generator())
    image, text = (found.tokens[name].valid.sum(1) for name in ("image", "text"))
    assert set(image.tolist()) == {16, 32}
    assert torch.equal(image == 16, text == 5), "the same exemplars at all modalities"
    alone = TokenDropout(ratio=0.5)(given, generator=generator())
    assert alone.tokens["text"] is given.tokens["text"]


def test_a_name_alone_is_no_list_of_modalities():
    with pytest.raises(SchemaError, match="one or more names, got 'image'"):
        TokenDropout(modalities="image")
    with pytest.raises(SchemaError, match="ratio"):
        TokenDropout(ratio=2)
