"""Random sequences of all public operations at the brim, with faults and kills; see `tests.driver`."""

import numpy as np
import pytest

from tests.driver.life import Tally, run_sequence
from tests.driver.model import same
from tests.driver.schemas import CASES, case_named, known

CHUNKS = 8
STEPS = 18  # operations of a sequence here, at most; the long profile (`python -m tests.driver.run`) does more


@pytest.mark.slow
@pytest.mark.kills
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_sequence_of_operations_faults_and_kills_loses_or_exceeds_anything(chunk, request):
    total = Tally()
    for seed in range(chunk, request.config.getoption("--sequences"), CHUNKS):
        total.add(run_sequence(seed, steps=STEPS))
    assert not total.failures, "\n\n".join(total.failures.values())
    assert total.operations > 3 * total.sequences


@pytest.mark.kills
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_sequences_of_each_schema_are_held_by_the_model(case, one_in):
    total = Tally()
    for seed in one_in(4, range(4)):
        total.add(run_sequence(10_000 + seed, steps=STEPS, case_name=case.name))
    assert not total.failures, "\n\n".join(total.failures.values())


@pytest.mark.parametrize(
    "name", ["text", "noisy-extras", "zero-extras", "lossless", "raw-pair", "noise", "empty", "drift"]
)
def test_what_lossless_codecs_return_is_what_was_given(name):
    facts = known(name)
    for given, found in zip(facts.pool, facts.first_reads, strict=True):
        for modality, tokens in given.tokens.items():
            dtype = case_named(name).schema().modalities[modality].dtype
            np.testing.assert_array_equal(found.tokens[modality].positions, tokens.positions)
            assert same(found.tokens[modality].values, np.asarray(tokens.values, dtype))
        for extra, value in given.extras.items():
            dtype = case_named(name).schema().extras[extra].dtype
            assert same(np.asarray(found.extras[extra]), np.asarray(value, dtype))
