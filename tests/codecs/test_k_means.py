"""Lloyd's k-means."""

import numpy as np

from exmem.codecs.k_means import k_means, nearest


def test_the_lower_of_two_centres_that_are_as_near_is_taken():
    centres = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    rows = np.array([[0, 0], [0, 5], [-3, 1], [2, 2]], np.float32)
    assert nearest(rows, centres).tolist() == [0, 1, 2, 0]


def test_rows_beyond_a_chunk_are_found_alike():
    rows = np.random.default_rng(0).normal(size=(5_000, 3)).astype(np.float32)
    distances = ((rows[:, None] - rows[None, :40]) ** 2).sum(2)
    assert (distances[np.arange(5_000), nearest(rows, rows[:40])] <= distances.min(1) + 1e-5).all()


def test_separate_groups_end_with_a_centre_each_and_copies_of_a_row_break_nothing():
    groups = np.array([[0, 0], [10, 0], [0, 10], [10, 10]], np.float32)
    rows = np.concatenate([groups + 0.1 * offset for offset in (-1, 0, 1)]).astype(np.float32)
    # Which rows are the first centres decides what Lloyd's algorithm finds; one seed of many leads to the optimum.
    found = min(
        (k_means(rows, 4, np.random.default_rng(seed)) for seed in range(20)),
        key=lambda centres: ((rows - centres[nearest(rows, centres)]) ** 2).sum(),
    )
    np.testing.assert_allclose(sorted(found.tolist()), sorted(groups.tolist()), atol=1e-6)
    alike = np.ones((20, 2), np.float32)
    np.testing.assert_array_equal(k_means(alike, 16, np.random.default_rng(0)), np.ones((16, 2)))
