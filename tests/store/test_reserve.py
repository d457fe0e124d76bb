"""The reserve against the bytes of every step that gives bytes back; the driver watches the same in its sequences."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from exmem import Exemplar, ExemplarMemory, ExtraSpec, Schema, TokenSet, TokenSpec
from exmem.errors import ExemplarTooLargeError
from tests.driver.reserve import reserve_watched
from tests.store.made import NUMBERS, QUICK, full, numbered

SCHEMA = Schema(
    {
        "f": TokenSpec(positions=40, shape=(24,), dtype="uint8", codec="raw"),
        "t": TokenSpec(positions=6, dtype="int16"),
    },
    {"e": ExtraSpec(shape=(30,), dtype="uint8")},
)


def made(count, noise, seed, label):
    """An exemplar of so many tokens, with an extra of noise or of zeros."""
    rng = np.random.default_rng(seed)
    tokens = {
        "f": TokenSet(np.arange(count), rng.integers(0, 256, (count, 24)).astype(np.uint8)),
        "t": TokenSet([seed % 6], np.array([seed], np.int16)),
    }
    extra = rng.integers(0, 256, 30) if noise else np.zeros(30)
    return Exemplar(tokens, label=label, priority=float(rng.random()), extras={"e": extra.astype(np.uint8)})


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    budget=st.integers(14_000, 120_000),
    most=st.integers(0, 40),
    noise=st.booleans(),
    batches=st.lists(st.integers(1, 60), min_size=3, max_size=8),
    part=st.floats(0.05, 0.9),
)
def test_no_step_that_gives_bytes_back_takes_more_than_the_reserve(
    tmp_path_factory, budget, most, noise, batches, part
):
    folder, needs, seed = tmp_path_factory.mktemp("m"), [], 0
    with (
        reserve_watched(lambda *step: needs.append(step)),
        ExemplarMemory.create(folder / "m", schema=SCHEMA, max_bytes=budget, **QUICK) as memory,
    ):
        for number, batch in enumerate(batches):
            given = [made((seed + index) % (most + 1), noise, seed + index, index % 4) for index in range(batch)]
            seed += batch
            try:
                memory.add(given)
            except ExemplarTooLargeError:
                continue
            if number % 2:
                memory.commit()
                memory.evict(memory.slots[np.random.default_rng(number).random(len(memory)) < part])
        memory.compact()
        memory.resize(max(13_000, budget // 3))
    assert all(need <= reserve for name, need, reserve in needs if name in {"evict", "change_state"})


@pytest.mark.slow
def test_the_reserve_is_no_larger_than_it_has_to_be(tmp_path, in_full):
    """Some step takes most of what is kept free for it."""
    needs = []
    with (
        reserve_watched(lambda *step: needs.append(step)),
        full(tmp_path / "m", NUMBERS, numbered, max_bytes=100_000, batch=500) as memory,
    ):
        for turn in range(20 if in_full else 5):
            memory.evict(memory.slots[turn::7])
            memory.add([numbered(10**6 + 1000 * turn + number) for number in range(600)])
            memory.commit()
    cleaned = [need / reserve for name, need, reserve in needs if name == "clean"]
    assert len(cleaned) > 20
    assert max(cleaned) > 0.15
