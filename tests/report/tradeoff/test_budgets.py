"""Budgets as they are written, and the bytes that they come to."""

import pytest

from exmem.errors import BudgetTooSmallError, SchemaError
from exmem.report.tradeoff.budgets import Budget, Sizes

SIZES = Sizes(raw_bytes=1_000.5, classes=4, model_bytes={"tuned": 600, "whole": 20_000})


@pytest.mark.parametrize(
    ("written", "shown", "split"),
    [
        ("250kB", "250 kB", (250_000, 0)),
        (9_120, "9120 B", (9_120, 0)),
        (1_234_567, "1234567 B", (1_234_567, 0)),
        ("1 MiB", "1048576 B", (1_048_576, 0)),
        ("20 per class", "20 per class", (80_040, 0)),
        ("model = 30", "model = 30", (29_415, 600)),
        ("model = 30, whole", "model = 30, whole", (10_015, 20_000)),
        ({"exemplars": 30, "model": True}, "model = 30", (29_415, 600)),
        ({"exemplars": 30, "model": "tuned"}, "model = 30", (29_415, 600)),
        ({"exemplars": 30, "model": "whole"}, "model = 30, whole", (10_015, 20_000)),
    ],
)
def test_a_budget_is_bytes_of_the_memory_and_of_the_model(written, shown, split):
    budget = Budget.of(written)
    assert (str(budget), budget.split(SIZES)) == (shown, split)
    assert Budget.of(shown) == budget, "as tables show it, it may be written"
    assert budget.needs_sizes == (not shown.endswith("B"))


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("plenty", "budgets: expected bytes .250kB., full raw examples a class .*got 'plenty'"),
        ("0 per class", "1 or more"),
        (0, "1 or more"),
        (-5, "expected bytes"),
        (True, "expected bytes"),
        ({"exemplars": 3}, "expected the keys exemplars and model, got ..exemplars"),
        ({"exemplars": 3, "model": "half"}, "model must be tuned or whole, got 'half'"),
        ({"exemplars": 0, "model": True}, "1 or more"),
    ],
)
def test_what_is_no_budget_is_refused_with_the_forms_there_are(written, told):
    with pytest.raises(SchemaError, match=told):
        Budget.of(written)


def test_a_model_that_takes_the_whole_budget_is_told_with_both_numbers():
    with pytest.raises(BudgetTooSmallError, match="10 raw exemplars are 10,005 bytes, and the model takes 20,000"):
        Budget.of("model = 10, whole").split(SIZES)
