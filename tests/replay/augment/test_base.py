"""Packing sorts what is kept and forgets the rest."""

import torch

from exmem.tokens.tensors import TokenTensors, packed, random_subset
from tests.replay.augment.cases import generator


def test_packing_sorts_by_position_and_leaves_zeros_behind():
    found = packed(
        TokenTensors(
            torch.tensor([[5, 6, 7, 8], [1, 2, 3, 4]]),
            torch.tensor([[9, 3, 0, 4], [2, 1, 8, 5]]),
            torch.tensor([[True, False, True, True], [True, False, False, False]]),
            torch.tensor([[False, True, False, True], [False, True, True, True]]),
        )
    )
    assert found.positions.tolist() == [[0, 4, 9], [2, 0, 0]]
    assert found.values.tolist() == [[7, 8, 5], [1, 0, 0]]
    assert found.valid.tolist() == [[True, True, True], [True, False, False]]
    assert found.unknown.tolist() == [[False, True, False], [False, False, False]]


def test_a_random_subset_has_the_count_that_was_asked_or_all_there_are():
    candidates = torch.tensor([[True, False, True, True], [False, True, False, False], [False] * 4])
    seen = torch.zeros(4, dtype=torch.int64)
    for seed in range(30):
        found = random_subset(candidates, torch.tensor([2, 3, 1]), generator=generator(seed))
        assert found.sum(1).tolist() == [2, 1, 0]
        assert not (found & ~candidates).any()
        seen += found[0]
    assert (seen > 0).tolist() == [True, False, True, True]
