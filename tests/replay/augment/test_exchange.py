"""Texts and images are exchanged within a class."""

import torch

from exmem.replay.augment import ImageExchange, TextExchange, class_partners
from tests.replay.augment.cases import batch, contents, generator


def test_a_partner_is_another_row_of_the_class_and_each_is_drawn_as_often():
    labels = torch.tensor([0, 1, 0, 0, 2])
    counts = torch.zeros(5, 5)
    rows = torch.arange(5)
    draws = generator()
    for _ in range(1000):
        counts[rows, class_partners(labels, probability=1.0, generator=draws)] += 1
    assert counts[1].tolist() == [0, 1000, 0, 0, 0], "alone in its class"
    assert counts[4].tolist() == [0, 0, 0, 0, 1000]
    pairs = [(0, 2), (0, 3), (2, 0), (2, 3), (3, 0), (3, 2)]
    # 1000 draws of probability 1/2: standard deviation 16, so five of them
    assert all(abs(int(counts[pair]) - 500) < 80 for pair in pairs)
    assert int(sum(counts[pair] for pair in pairs)) == 3000


def test_the_chance_of_a_partner_is_the_probability():
    partners = class_partners(torch.zeros(4000, dtype=torch.int64), probability=0.25, generator=generator())
    changed = int((partners != torch.arange(4000)).sum())
    assert abs(changed - 1000) < 140  # standard deviation 27, so five of them


def test_two_of_a_class_exchange_their_texts_and_keep_their_images():
    given = batch([1, 3, 5], [7, 8, 7])
    found = TextExchange(probability=1.0)(given, generator=generator())
    for row, origin in enumerate([2, 1, 0]):
        assert contents(found.tokens["text"], row) == contents(given.tokens["text"], origin)
    assert found.tokens["image"] is given.tokens["image"]


def test_all_scales_of_an_image_are_exchanged_together():
    given = batch([1, 3, 5, 7], [7, 7, 7, 7], unknown=True)
    found = ImageExchange(probability=1.0)(given, generator=generator())
    origins = [
        [other for other in range(4) if contents(found.tokens["whole"], row) == contents(given.tokens["whole"], other)]
        for row in range(4)
    ]
    for row, (origin,) in enumerate(origins):
        assert origin != row
        for name in ("image", "coarse"):
            assert contents(found.tokens[name], row) == contents(given.tokens[name], origin)
    assert found.tokens["text"] is given.tokens["text"]
