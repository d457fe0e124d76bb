"""Parts by name: exmem's own, those of a script, and those of other packages."""

import dataclasses
import functools
import importlib.metadata
import inspect
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import exmem.registry
from exmem.errors import DataError, SchemaError
from exmem.registry import Part, Registry


@dataclasses.dataclass(frozen=True, kw_only=True)
class Round:
    radius: float
    filled: bool = False


def scaled(value, *, factor, offset=0):
    return value * factor + offset


@pytest.fixture
def shapes():
    return Registry("shape kind", {"round": Round, "scaled": scaled, "root": "math:sqrt"})


def offered(monkeypatch, *entries):
    """Other packages that offer parts: (group, name, where it is)."""
    points = [importlib.metadata.EntryPoint(name, value, group) for group, name, value in entries]
    monkeypatch.setattr(
        exmem.registry, "entry_points", lambda group: [point for point in points if point.group == group]
    )


def test_a_class_is_made_with_its_options_and_a_function_bound_to_them(shapes):
    assert shapes.make("round", radius=2) == Round(radius=2)
    assert shapes.make("scaled", factor=3)(5) == 15
    assert shapes.make("scaled") is scaled
    assert shapes.make("root") is math.sqrt


def test_the_options_are_those_of_the_signature_with_their_defaults(shapes):
    assert shapes.options("round") == {"radius": inspect.Parameter.empty, "filled": False}
    assert shapes.options("scaled") == {"factor": inspect.Parameter.empty, "offset": 0}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("square", {}, r"unknown shape kind 'square'; choose one of \['root', 'round', 'scaled'\]"),
        ("round", {"radius": 1, "colour": 2}, r"'round' has no option \['colour'\]; it has \['filled', 'radius'\]"),
        ("round", {"filled": True}, r"shape kind 'round' needs \['radius'\]"),
        ("scaled", {"value": 1}, r"has no option \['value'\]; it has \['factor', 'offset'\]"),
    ],
)
def test_a_wrong_name_or_option_is_told_with_the_known_ones(shapes, name, options, message):
    with pytest.raises(SchemaError, match=message):
        shapes.make(name, **options)


def test_an_error_is_of_the_kind_that_the_registry_was_given():
    with pytest.raises(DataError, match="unknown"):
        Registry("row", {}, error=DataError)["a"]


def test_a_registry_is_a_mapping_in_alphabetical_order(shapes):
    assert [*shapes] == ["root", "round", "scaled"]
    assert len(shapes) == 3
    assert "round" in shapes
    assert 3 not in shapes
    assert shapes.get("round") is Round
    assert shapes.get("square") is shapes.get("square", None) is None


def test_a_part_of_ones_own_is_added_under_a_free_name_only(shapes):
    shapes.add("line", functools.partial(scaled, factor=1))
    assert shapes.make("line", offset=2)(1) == 3
    assert "line" in shapes
    with pytest.raises(SchemaError, match="there is a shape kind 'line' already; choose another name"):
        shapes.add("line", Round)


def test_another_package_adds_a_part_by_an_entry_point_of_the_kind(shapes, monkeypatch):
    offered(monkeypatch, ("exmem.shape_kind", "floor", "math:floor"), ("exmem.other", "ceil", "math:ceil"))
    assert [*shapes] == ["floor", "root", "round", "scaled"]
    assert shapes["floor"] is math.floor
    assert "ceil" not in shapes
    with pytest.raises(SchemaError, match="already"):
        shapes.add("floor", math.trunc)


def test_a_name_that_several_claim_is_an_error_only_when_it_is_asked(shapes, monkeypatch):
    offered(
        monkeypatch,
        ("exmem.shape_kind", "round", "other.package:Round"),
        ("exmem.shape_kind", "cube", "one:Cube"),
        ("exmem.shape_kind", "cube", "two:Cube"),
    )
    assert len(shapes) == 4
    assert shapes["scaled"] is scaled
    with pytest.raises(SchemaError, match=r"'round' is there more than once, in \['exmem', 'other.package:Round'\]"):
        shapes["round"]
    with pytest.raises(SchemaError, match=r"in \['one:Cube', 'two:Cube'\]; rename or remove one"):
        shapes.make("cube")


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("random", "random", {}),
        ("top_k:k=5", "top_k", {"k": 5}),
        ("lost:direction=both,cls_threshold=1.5", "lost", {"direction": "both", "cls_threshold": 1.5}),
        ("a:layers=[-3,-2],b=true,c=null", "a", {"layers": (-3, -2), "b": True, "c": None}),
        ("a:grids=[[1,2],[3,4]],x=1", "a", {"grids": ((1, 2), (3, 4)), "x": 1}),
        ('a:text="30",other="b,c"', "a", {"text": "30", "other": "b,c"}),
    ],
)
def test_a_part_is_read_from_text_as_worked_out_by_hand(text, name, options):
    part = Part.of(text)
    assert (part.name, part.kwargs) == (name, options)
    assert Part.of({"name": name, **options}) == part
    assert hash(part) == hash(Part.of(str(part)))


@pytest.mark.parametrize("wrong", ["", ":k=5", "a:", "a:k", "a:=5", "a:k=1,k=2", 3, None, {}, {"k": 3}, {"name": 3}])
def test_what_is_no_part_says_how_one_is_written(wrong):
    if wrong == "a:":
        assert Part.of(wrong) == Part("a")
        return
    with pytest.raises(SchemaError, match=r"expected NAME, NAME:OPTION=VALUE,\.\.\. or a mapping with 'name'"):
        Part.of(wrong)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
OPTIONS = st.dictionaries(
    st.from_regex(r"[a-z_]{1,8}", fullmatch=True).filter(lambda key: key != "name"),
    st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=6),
    max_size=4,
)


@given(name=st.from_regex(r"[a-z_]{1,8}", fullmatch=True), options=OPTIONS)
def test_a_part_goes_through_text_and_json_whatever_its_options_are(name, options):
    part = Part.of({"name": name, **options})
    assert Part.of(str(part)) == part
    assert Part.of(json.loads(json.dumps(part.to_json()))) == part
    assert Part(name, tuple(options.items())[::-1]) == part, "in whatever order they come"
