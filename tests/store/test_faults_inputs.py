"""Faults that earlier stores had, each kind with a test of its own: what callers give, and where they put a store."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.storage import MemoryStore, ZipStore

from exmem import Exemplar, ExemplarMemory, ExtraSpec, Schema, TokenSet, TokenSpec
from exmem.errors import ExmemError, InvalidExemplarError, SchemaError, UnknownSlotError
from exmem.memory.maintenance import check, repair
from tests.store.made import QUICK, TEXT, contents, full, text

# Evictions name slots.


MASKS = [
    np.array([True] * 3 + [False] * 7),
    [True, False],
    [2.9],
    np.array([1.0]),
    ["3"],
    [[0, 1], [2, 3]],
    [None],
    "12",
    np.array(["1"]),
    [0, 1.5],
]


@pytest.mark.parametrize("wrong", MASKS, ids=repr)
def test_what_names_no_slots_is_refused_by_evict_read_and_update_alike(tmp_path, wrong):
    with ExemplarMemory.create(tmp_path / "m", schema=TEXT, max_bytes=50_000, **QUICK) as memory:
        memory.add([text(number, label=number // 5) for number in range(10)])
        memory.commit()
        for act in (memory.evict, memory.read, lambda slots: memory.update(slots, priority=2.0)):
            with pytest.raises(ExmemError):
                act(wrong)
            assert memory.slots.tolist() == list(range(10))
        for unknown in ([10], [-1], [0, 99], [2**62]):
            with pytest.raises(UnknownSlotError):
                memory.evict(unknown)
        assert memory.slots.tolist() == list(range(10))
        memory.evict(np.array([3, 3], np.uint8))
        assert 3 not in memory


# Extras that do not fit their dtype.


WRONG_EXTRAS = [
    ("int8", 300),
    ("int8", -129),
    ("uint8", -1),
    ("int32", 2**40 + 1),
    ("uint64", -1),
    ("int64", 2**63),
    ("int16", float("nan")),
    ("int16", 1.5),
    ("int16", float("inf")),
    ("float16", 1e9),
    ("float32", 1e39),
    ("bool", 2),
    ("int8", "7"),
    ("float32", None),
    ("float32", 1j),
]


@pytest.mark.parametrize(("dtype", "value"), WRONG_EXTRAS, ids=repr)
def test_an_extra_that_does_not_fit_its_dtype_is_refused_and_nothing_is_stored(tmp_path, dtype, value):
    schema = Schema({"t": TokenSpec(positions=8)}, {"a": ExtraSpec(dtype=dtype)})
    tokens = {"t": TokenSet([0], np.array([1], np.uint8))}
    with ExemplarMemory.create(tmp_path / "m", schema=schema, max_bytes=50_000, **QUICK) as memory:
        one = np.ones((), dtype)
        memory.add([Exemplar(tokens, label=0, extras={"a": one})])
        with pytest.raises(InvalidExemplarError, match="a"):
            memory.add([Exemplar(tokens, label=0, extras={"a": one}), Exemplar(tokens, label=0, extras={"a": value})])
        assert len(memory) == 1
        with pytest.raises(ExmemError):
            memory.update([0], extras={"a": [value]})
        assert memory.read([0]).extras["a"].tolist() == [1]


def test_extras_that_fit_are_stored_as_they_are(tmp_path):
    dtypes = {"a": "int8", "b": "float16", "c": "uint64", "d": "bool", "e": "float32"}
    schema = Schema({"t": TokenSpec(positions=8)}, {name: ExtraSpec(dtype=dtype) for name, dtype in dtypes.items()})
    extras = {"a": -128, "b": float("nan"), "c": 2**64 - 1, "d": True, "e": float("-inf")}
    tokens = {"t": TokenSet([0], np.array([1], np.uint8))}
    with ExemplarMemory.create(tmp_path / "m", schema=schema, max_bytes=50_000, **QUICK) as memory:
        read = memory.read(memory.add([Exemplar(tokens, label=0, extras=extras)]).slots).extras
        assert [read["a"][0], read["c"][0], read["d"][0], read["e"][0]] == [-128, 2**64 - 1, True, -np.inf]
        assert np.isnan(read["b"][0])


def test_a_name_of_a_charge_is_text_and_no_other_name_breaks_the_store(tmp_path):
    folder = tmp_path / "m"
    with ExemplarMemory.create(folder, schema=TEXT, max_bytes=50_000, **QUICK) as memory:
        for wrong in (5, None, b"means", True, "", "\ud800", "a\x00b"):
            try:
                memory.charge(wrong, 10)
            except (SchemaError, ExmemError):
                continue
            assert isinstance(wrong, str), f"a charge named {wrong!r} was taken"
        memory.charge("5", 20)
        charges = memory.charges
    with ExemplarMemory.open(folder, "r+", **QUICK) as memory:
        assert memory.charges == charges


# Metadata that other tools add.


def test_a_store_whose_metadata_was_consolidated_is_read_written_and_sound(tmp_path):
    folder = tmp_path / "m"
    with full(folder, TEXT, text, max_bytes=40_000) as memory:
        held = contents(memory)
    with pytest.warns(match="[Cc]onsolidated"):
        zarr.consolidate_metadata(str(folder))
    with ExemplarMemory.open(folder, threads=1) as reader:
        assert contents(reader) == held
    assert check(folder) == []
    assert repair(folder).damage == ()
    with ExemplarMemory.open(folder, "r+", **QUICK) as memory:
        assert contents(memory) == held
        memory.add([text(1, label=9, priority=5.0)])
        memory.commit()
        assert (memory.labels == 9).sum() == 1
    assert len([*zarr.open_group(str(folder), mode="r").members(max_depth=None)]) > 3


def test_keys_that_other_tools_add_to_any_document_do_not_hurt(tmp_path):
    folder = tmp_path / "m"
    with full(folder, TEXT, text, max_bytes=60_000, batch=10) as memory:
        memory.resize(50_000)
        held = contents(memory)
    for path in sorted(folder.rglob("zarr.json")):
        if path.parent.name == "lock":
            continue
        document = json.loads(path.read_text())
        document.setdefault("attributes", {})["_ARRAY_DIMENSIONS"] = ["x"]
        document["attributes"]["other_tool"] = {"version": 1}
        path.write_text(json.dumps(document))
        with ExemplarMemory.open(folder, threads=1) as reader:
            assert contents(reader) == held, path
    assert check(folder) == []
    with ExemplarMemory.open(folder, "r+", **QUICK) as memory:
        assert contents(memory) == held
        memory.add([text(1, label=9, priority=5.0)])


# Budgets, labels, names and places in forms that users have.


@pytest.mark.parametrize(
    ("given", "expected"),
    [(np.int64(50_000), 50_000), (np.uint32(40_000), 40_000), ("64M", 64_000_000), ("64k", 64_000), ("1Mi", 2**20)],
    ids=repr,
)
def test_a_budget_may_be_a_numpy_integer_or_a_short_text(tmp_path, given, expected):
    with ExemplarMemory.create(tmp_path / "m", schema=TEXT, max_bytes=given, **QUICK) as memory:
        assert memory.max_bytes == expected
        assert type(memory.max_bytes) is int
        memory.resize(given)
        memory.charge("means", np.int32(100))
        assert memory.charges == {"means": 100}


@pytest.mark.parametrize("given", [1.5, True, None, "", "-1", -1, float("nan"), "64 parsecs", [50_000]], ids=repr)
def test_what_is_no_budget_is_refused_and_makes_no_folder(tmp_path, given):
    with pytest.raises(ExmemError):
        ExemplarMemory.create(tmp_path / "m", schema=TEXT, max_bytes=given, **QUICK)
    assert not (tmp_path / "m").exists()


def labels_of_one():
    torch = pytest.importorskip("torch")
    return [np.int64(1), np.uint8(1), np.array(1), torch.tensor(1), torch.tensor(1, dtype=torch.uint8)]


@pytest.mark.parametrize("kind", range(5))
def test_labels_may_be_numpy_scalars_and_tensors(tmp_path, kind):
    label = labels_of_one()[kind]
    tokens = text(0).tokens
    with ExemplarMemory.create(tmp_path / "m", schema=TEXT, max_bytes=50_000, **QUICK) as memory:
        memory.add([Exemplar(tokens, label=label, priority=np.float32(0.5))])
        assert memory.labels.tolist() == [1]
        assert memory.priorities.tolist() == [0.5]
        assert memory.slots_of(label).tolist() == [0]
        assert memory.evict_class(label).tolist() == [0]


@pytest.mark.parametrize("label", [1.5, "1", None, 2**63, float("nan"), [1], True], ids=repr)
def test_what_is_no_label_is_refused(tmp_path, label):
    tokens = text(0).tokens
    with ExemplarMemory.create(tmp_path / "m", schema=TEXT, max_bytes=50_000, **QUICK) as memory:
        with pytest.raises(InvalidExemplarError):
            memory.add([Exemplar(tokens, label=label)])
        assert len(memory) == 0


@pytest.mark.parametrize("name", ["means\ud800", "me\x00ans", "", "x" * 100_000], ids=ascii)
def test_names_that_cannot_be_written_are_refused_and_the_memory_goes_on(tmp_path, name):
    folder = tmp_path / "m"
    with ExemplarMemory.create(folder, schema=TEXT, max_bytes=50_000, **QUICK) as memory:
        for act in (
            lambda: memory.charge(name, 10),
            lambda: memory.annotate(class_names={0: name}),
            lambda: memory.annotate(attrs={name: 1}),
            lambda: memory.annotate(attrs={"note": name}),
        ):
            try:
                act()
            except ExmemError:
                continue
        memory.add([text(0)])
        told = memory.charges, memory.attrs, memory.class_names
    with ExemplarMemory.open(folder, "r+", **QUICK) as memory:
        assert (memory.charges, memory.attrs, memory.class_names) == told
        assert len(memory) == 1


NO_JSON = {
    "nan": {"a": float("nan")},
    "object": {"a": object()},
    "number": {1: 2},
    "set": {"a": {1, 2}},
    "list": [1],
    "text": "text",
}


@pytest.mark.parametrize("attrs", NO_JSON.values(), ids=NO_JSON)
def test_attributes_that_json_does_not_hold_are_refused(tmp_path, attrs):
    with ExemplarMemory.create(tmp_path / "m", schema=TEXT, max_bytes=50_000, **QUICK) as memory:
        memory.annotate(attrs={"run": 1})
        with pytest.raises(ExmemError):
            memory.annotate(attrs=attrs)
        assert memory.attrs == {"run": 1}


@pytest.mark.parametrize(
    "place", [42, None, b"m\0", "m\0", "m\ud800", 1.5, pytest.param(object(), id="object")], ids=ascii
)
def test_what_is_no_place_is_refused_in_words(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for act in (
        lambda: ExemplarMemory.open(place),
        lambda: ExemplarMemory.open(place, "r+"),
        lambda: ExemplarMemory.create(place, schema=TEXT, max_bytes=50_000),
        lambda: check(place),
    ):
        with pytest.raises(SchemaError):
            act()
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("place", ["s3://bucket/m", "gs://bucket/m", "https://example.org/m", "memory://m"])
def test_an_address_is_no_path_and_makes_no_folder(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for act in (
        lambda: ExemplarMemory.open(place),
        lambda: ExemplarMemory.create(place, schema=TEXT, max_bytes=50_000),
    ):
        with pytest.raises(SchemaError, match=r"[Ss]tore"):
            act()
    assert not [*tmp_path.iterdir()]


def test_a_zip_store_that_is_not_opened_is_told_so_or_read(tmp_path):
    with ExemplarMemory.create(tmp_path / "m", schema=TEXT, max_bytes=50_000, **QUICK) as memory:
        memory.add([text(0)])
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as packed:
        for path in sorted((tmp_path / "m").rglob("*")):
            if path.is_file():
                packed.write(path, path.relative_to(tmp_path / "m").as_posix())
    unopened = ZipStore(tmp_path / "m.zip", mode="r")
    with ExemplarMemory.open(unopened, threads=1) as memory:
        assert len(memory) == 1
    for act in (
        lambda: ExemplarMemory.open(ZipStore(tmp_path / "m.zip", mode="a"), "r+"),
        lambda: ExemplarMemory.create(ZipStore(tmp_path / "n.zip", mode="w"), schema=TEXT, max_bytes=50_000),
    ):
        with pytest.raises(ExmemError):
            act()


def test_a_memory_in_ram_is_a_place_too():
    store = MemoryStore()
    with ExemplarMemory.create(store, schema=TEXT, max_bytes=50_000, threads=1) as memory:
        memory.add([text(0)])
    with ExemplarMemory.open(store, "r+", threads=1) as memory:
        assert len(memory) == 1


def test_a_place_may_begin_with_the_home_and_a_name_that_is_no_users_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    ExemplarMemory.create(Path("~/m"), schema=TEXT, max_bytes=50_000, **QUICK).close()
    ExemplarMemory.create("~no-such-user", schema=TEXT, max_bytes=50_000, **QUICK).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "~no-such-user"]
    assert ExemplarMemory.open("~/m").location == str(tmp_path / "m")


# Numbers that no document of a store can hold: they were committed, and the memory never opened again.


TOO_MUCH = {
    "resize(10**19)": lambda memory: memory.resize(10**19),
    "resize(text)": lambda memory: memory.resize("10000000 TB"),
    "resize(max_exemplars)": lambda memory: memory.resize(max_exemplars=2**63),
    "charge": lambda memory: memory.charge("means", 2**63),
    "charge(text)": lambda memory: memory.charge("means", "99999999TiB"),
    "weigh": lambda memory: memory.weigh({2**63: 2.0}),
    "class_names": lambda memory: memory.annotate(class_names={-(2**63) - 1: "x"}),
    "sample(n)": lambda memory: memory.sample(2**70),
    "sample(2**24 + 1)": lambda memory: memory.sample(2**24 + 1),
    "sample(seed)": lambda memory: memory.sample(1, seed=2**63),
    "digits": lambda memory: memory.resize(10**5000),
}


@pytest.mark.parametrize("act", TOO_MUCH.values(), ids=TOO_MUCH)
def test_a_number_that_cannot_be_written_is_refused_and_the_memory_opens_again(tmp_path, act):
    with ExemplarMemory.create(tmp_path / "m", schema=TEXT, max_bytes=50_000, **QUICK) as memory:
        memory.add([text(0)])
        with pytest.raises(SchemaError, match=r"must be an integer of (0\.\.|64 bits)"):
            act(memory)
    with ExemplarMemory.open(tmp_path / "m", "r+", **QUICK) as memory:
        assert (memory.max_bytes, memory.max_exemplars, memory.charges, len(memory)) == (50_000, None, {}, 1)


@pytest.mark.parametrize(
    "options",
    [{"max_bytes": 2**63}, {"max_exemplars": 2**63}, {"threads": 0}, {"threads": 10**9}, {"durable": "no"}],
    ids=str,
)
def test_create_refuses_before_anything_is_written(tmp_path, options):
    with pytest.raises(SchemaError):
        ExemplarMemory.create(tmp_path / "m", **{"schema": TEXT, "max_bytes": 50_000, **options})
    assert not (tmp_path / "m").exists()


def test_the_largest_numbers_are_taken_and_read_again(tmp_path):
    most = 2**63 - 1
    with ExemplarMemory.create(tmp_path / "m", schema=TEXT, max_bytes=most, max_exemplars=most, **QUICK) as memory:
        memory.charge("means", most // 2)
        memory.add([Exemplar(text(0).tokens, label=most), Exemplar(text(1).tokens, label=-most - 1)])
    with ExemplarMemory.open(tmp_path / "m", "r+", **QUICK) as memory:
        assert (memory.max_bytes, memory.max_exemplars, memory.charges) == (most, most, {"means": most // 2})
        assert memory.labels.tolist() == [most, -most - 1]


@pytest.mark.parametrize(
    "positions",
    [np.array([2**63, 2**63 + 1], np.uint64), np.array([0, 2**64 - 1], np.uint64), [0, 2**64], "01", [False, True]],
)
def test_positions_beyond_63_bits_do_not_turn_into_others(positions):
    with pytest.raises(InvalidExemplarError, match="positions must be"):
        TokenSet(positions, np.zeros(2, np.uint8))
