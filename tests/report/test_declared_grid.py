"""Sheets draw the grid that a schema declares."""

from exmem import Schema, TokenSpec
from exmem.report.view.exemplars import Known, _grids, _notes


def test_a_sheet_draws_the_declared_grid_and_says_nothing_of_squares():
    declared = Schema.images(size=(48, 32), patch=16)
    assert _grids(declared, None, (1, 1)) == {"image": (3, 2)}
    assert _grids(declared, (2, 3), None) == {"image": (2, 3)}, "what is asked for counts"
    undeclared = Schema({"image": TokenSpec(positions=6, shape=(16, 16, 3))})
    known = Known()
    assert not any("no square" in note for note in _notes(declared, {"image": (3, 2)}, known, all_shown=True))
    assert any("no square" in note for note in _notes(undeclared, {"image": (2, 3)}, known, all_shown=True))
