"""What a limit in samples becomes in bytes."""

from bench.limits import stored_bytes


def test_a_recipe_makes_less_of_the_same_samples_and_raw_about_what_they_are():
    raw, jpeg, half = (stored_bytes(recipe, 20, 64) for recipe in ("raw", "jpeg", "half_jpeg"))
    assert 20 * 64 * 64 * 3 < raw < 1.1 * 20 * 64 * 64 * 3
    assert half < jpeg < raw / 3
