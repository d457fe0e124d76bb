"""Hidden states that are kept: rows of them lose image tokens."""

import torch

from exmem.backbones import Stream


def stream(counts):
    """One row per count; an image token is filled with its position, padding with -1."""
    rows, most = len(counts), max(counts)
    keep = torch.arange(most) < torch.tensor(counts)[:, None]
    positions = torch.arange(most).expand(rows, most) * keep
    image = torch.where(keep, positions, -1)[..., None].float()
    nothing = torch.zeros(rows, 0)
    return Stream(torch.zeros(rows, 1, 1), image, keep, positions, nothing[..., None], nothing.bool(), nothing.long())


def test_thinned_rows_lose_a_share_of_their_tokens_and_the_rest_keeps_place_and_order():
    found = stream([8, 5, 1, 0]).thinned(0.5, probability=1.0, generator=torch.Generator().manual_seed(0))
    assert found.image_keep.sum(1).tolist() == [4, 3, 1, 0]  # 2.5 is rounded to 2, and one token always stays
    assert found.image.shape[1] == 4
    for row in range(4):
        kept = found.image_positions[row][found.image_keep[row]].tolist()
        assert kept == sorted(set(kept))
        assert found.image[row, found.image_keep[row], 0].tolist() == kept


def test_rows_are_thinned_by_chance_and_by_seed():
    def lengths(seed, probability=0.5):
        generator = torch.Generator().manual_seed(seed)
        return stream([4] * 64).thinned(0.5, probability=probability, generator=generator).image_keep.sum(1).tolist()

    assert set(lengths(0)) == {2, 4}
    assert lengths(0) == lengths(0) != lengths(1)
    assert set(lengths(0, 0.0)) == {4}
