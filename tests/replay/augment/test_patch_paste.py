"""Patches are pasted where an exemplar has none."""

import pytest
import torch

from exmem.errors import SchemaError
from exmem.replay.augment import PatchPaste
from exmem.tokens.tensors import TensorBatch, TokenTensors
from tests.replay.augment.cases import generator


def two(*, label=0, unknown=None):
    """Row 0 holds positions 0, 2 (values 10, 12); row 1 holds 1, 2, 5 (values 21, 22, 25)."""
    values = torch.tensor([[10, 12, 0], [21, 22, 25]], dtype=torch.uint8).reshape(2, 3, 1, 1, 1).repeat(1, 1, 2, 2, 3)
    keep = torch.tensor([[True, True, False], [True, True, True]])
    tokens = TokenTensors(values, torch.tensor([[0, 2, 0], [1, 2, 5]]), keep, unknown)
    return TensorBatch({"image": tokens}, torch.tensor([0, label]))


def rows(batch):
    tokens = batch.tokens["image"]
    return [
        dict(zip(tokens.positions[row][kept].tolist(), tokens.values[row, kept, 0, 0, 0].tolist(), strict=True))
        for row, kept in enumerate(tokens.valid)
    ]


def test_dropped_places_are_taken_and_own_tokens_win():
    found = PatchPaste(probability=1.0)(two(), generator=generator())
    assert rows(found) == [{0: 10, 1: 21, 2: 12, 5: 25}, {0: 10, 1: 21, 2: 22, 5: 25}]
    assert rows(PatchPaste(probability=1.0)(two(label=1), generator=generator())) == rows(two(label=1))


def test_the_number_of_pasted_tokens_is_bound_by_ratio_and_most():
    seen = set()
    for seed in range(20):
        half = rows(PatchPaste(probability=1.0, ratio=0.5)(two(), generator=generator(seed)))
        one = rows(PatchPaste(probability=1.0, most=1)(two(), generator=generator(seed)))
        assert [len(half[0]), len(one[0]), len(one[1])] == [3, 3, 4]
        seen |= set(half[0]) - {0, 2}
    assert seen == {1, 5}, "the pasted token is drawn"
    assert rows(PatchPaste(probability=1.0, most=0)(two(), generator=generator())) == rows(two())


def test_a_token_of_unknown_value_is_not_pasted_but_stays_where_it_is():
    unknown = torch.tensor([[True, False, False], [False, False, True]])
    found = PatchPaste(probability=1.0)(two(unknown=unknown), generator=generator())
    assert [sorted(row) for row in rows(found)] == [[0, 1, 2], [1, 2, 5]]
    assert found.tokens["image"].unknown.tolist() == [[True, False, False], [False, False, True]]


def test_a_row_may_hold_a_position_above_all_those_of_its_partners():
    values = torch.full((3, 1, 2, 2, 3), 7, dtype=torch.uint8)
    positions, keep = torch.tensor([[1], [2], [9]]), torch.ones(3, 1, dtype=torch.bool)
    batch = TensorBatch({"image": TokenTensors(values, positions, keep)}, torch.zeros(3, dtype=torch.int64))
    for seed in range(20):  # in some of them nobody is the partner of row 2
        found = rows(PatchPaste(probability=1.0)(batch, generator=generator(seed)))
        assert [len(row) for row in found] == [2, 2, 2]
        assert 9 in found[2]


def test_options_out_of_range_are_refused():
    with pytest.raises(SchemaError, match=r"ratio must be in 0\.\.1"):
        PatchPaste(ratio=-0.1)
    with pytest.raises(SchemaError, match="most must be 0 or more"):
        PatchPaste(most=-1)
