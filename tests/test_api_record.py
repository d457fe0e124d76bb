"""No public name comes, goes or takes something else without being noticed."""

from tests.public_api import RECORD, record


def test_the_public_names_and_their_signatures_are_those_that_are_recorded():
    told = "the public API changed; python -m tests.public_api records it, and CHANGELOG.md says so"
    assert record().splitlines() == RECORD.read_text(encoding="utf-8").splitlines(), told


def test_the_record_has_what_users_import_most():
    lines = RECORD.read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(set(lines)) > 1000
    for name in (
        "exmem.ExemplarMemory.create(",
        "exmem.Schema.",
        "exmem.replay.replay_loader(",
        "exmem.train.trainer.Trainer(",
    ):
        assert any(name in line for line in lines), name
