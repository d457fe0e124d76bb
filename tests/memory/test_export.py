"""Memories as plain folders, and back."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from exmem import Exemplar, ExemplarMemory, ExtraSpec, Schema, TokenSet, TokenSpec
from exmem.errors import CorruptExemplarError, DataError, ExemplarTooLargeError, ExmemError
from exmem.memory.export import export_folder, import_folder, is_image
from exmem.memory.maintenance import check
from exmem.memory.quota import Quota
from exmem.memory.reservoir import StreamReservoir, arrival_keys
from tests.exemplars import assert_same, exemplar, patches, schema


@pytest.fixture(scope="module")
def exported_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    with ExemplarMemory.create(folder / "m", schema=schema("patch_webp"), max_bytes="500kB") as memory:
        memory.add([exemplar(seed, label=seed % 3, priority=[-np.inf, 1.5][seed % 2]) for seed in range(80)])
        memory.commit()
        assert export_folder(memory, folder / "out") == 80
    return folder / "out"


@pytest.fixture
def exported(exported_once, tmp_path):
    """An exported folder, to be changed as the test likes."""
    return shutil.copytree(exported_once, tmp_path / "out")


def test_a_memory_comes_back_as_it_was(tmp_path, exported):
    with import_folder(exported, tmp_path / "again") as memory:
        assert memory.max_bytes == 500_000
        for slot in memory.slots.tolist():
            given = exemplar(slot, label=slot % 3, priority=[-np.inf, 1.5][slot % 2])
            assert_same(memory.read([slot]).exemplar(0), given)


def test_images_show_patches_in_their_places(exported):
    line = json.loads((exported / "metadata.jsonl").read_text().splitlines()[7])
    with Image.open(exported / line["tokens"]["image"]["file"]) as opened:
        image = np.asarray(opened)
    assert image.shape == (64, 64, 3)
    place = line["tokens"]["image"]["positions"][0]
    top, left = 16 * (place // 4), 16 * (place % 4)
    np.testing.assert_array_equal(image[top : top + 16, left : left + 16], patches(7)[place])


def test_features_and_odd_grids_come_back_too(tmp_path):
    own = Schema(
        {
            "strip": TokenSpec(positions=5, shape=(4, 6), dtype="uint8", codec="lossless"),
            "features": TokenSpec(positions=3, shape=(40,), dtype="float16", codec="raw"),
        },
        {"flag": ExtraSpec(dtype="bool")},
    )
    rng = np.random.default_rng(0)
    given = [
        Exemplar(
            {
                "strip": TokenSet([1, 4], rng.integers(0, 256, (2, 4, 6)).astype(np.uint8)),
                "features": TokenSet([2], rng.normal(size=(1, 40)).astype(np.float16)),
            },
            label=-3,
            extras={"flag": True},
        ),
        Exemplar(
            {
                "strip": TokenSet([], np.zeros((0, 4, 6), np.uint8)),
                "features": TokenSet([], np.zeros((0, 40), np.float16)),
            },
            label=2**40,
            extras={"flag": False},
        ),
    ]
    with ExemplarMemory.create(tmp_path / "m", schema=own, max_bytes="100kB") as memory:
        memory.add(given)
        memory.commit()
        export_folder(memory, tmp_path / "out")
    with import_folder(tmp_path / "out", tmp_path / "again", max_bytes="50kB") as memory:
        assert memory.max_bytes == 50_000
        for slot, expected in enumerate(given):
            assert_same(memory.read([slot]).exemplar(0), expected)


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": {}},
        {"label": "seven"},
        {"priority": None},
        {"extras": {}},
        {"tokens": {"image": {"positions": [0], "file": "../../secret.png"}, "text": {"positions": [], "values": []}}},
        {"tokens": {"image": {"positions": [0], "file": "files/none.png"}, "text": {"positions": [], "values": []}}},
        {
            "tokens": {
                "image": {"positions": [16], "file": "files/0-image.png"},
                "text": {"positions": [], "values": []},
            }
        },
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_kept(tmp_path, exported, change):
    lines = (exported / "metadata.jsonl").read_text().splitlines()
    lines[70] = json.dumps(json.loads(lines[70]) | change)
    (exported / "metadata.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"line 71: .*again is incomplete, remove it"):
        import_folder(exported, tmp_path / "again").close()
    with ExemplarMemory.open(tmp_path / "again", "r+") as memory:  # it was closed, and nothing was committed
        assert len(memory) == 0


def test_a_folder_that_is_no_export_or_not_empty_is_refused(tmp_path, exported_once, exported):
    with pytest.raises(DataError, match=r"memory\.json"):
        import_folder(tmp_path, tmp_path / "again")
    with ExemplarMemory.open(exported_once.parent / "m") as memory, pytest.raises(DataError, match="not empty"):
        export_folder(memory, exported)


def test_what_the_memory_is_comes_back_with_it_and_old_exports_do_without(tmp_path):
    quota = Quota(unit="counts", weights={0: 2, -4: 0.5})
    options = {"schema": schema("lossless"), "quota": "counts", "max_exemplars": 30}
    with ExemplarMemory.create(tmp_path / "m", max_bytes="300kB", **options) as memory:
        memory.weigh(quota.weights)
        memory.annotate(attrs={"recipe": {"scorer": "centre", "ratio": 0.5}}, class_names={0: "chat", -4: "été"})
        memory.add([exemplar(seed, label=-4 * (seed % 2), priority=-seed, kept=4) for seed in range(60)])
        memory.commit()
        assert export_folder(memory, tmp_path / "out") == 30
    with import_folder(tmp_path / "out", tmp_path / "again") as memory:
        assert (memory.quota, memory.max_exemplars, len(memory)) == (quota, 30, 30)
        assert memory.attrs == {"recipe": {"scorer": "centre", "ratio": 0.5}}
        assert memory.class_names == {0: "chat", -4: "été"}
    with import_folder(tmp_path / "out", tmp_path / "small", max_bytes="60kB") as memory:
        numbers = {label: held.exemplars for label, held in memory.summary().items()}
        assert len(memory) < 30
        assert abs(numbers[0] - 4 * numbers[-4]) <= 4  # what did not fit went by the weights
    head = json.loads((tmp_path / "out" / "memory.json").read_text())
    for missing in ("quota", "max_exemplars", "eviction", "attrs", "class_names"):
        del head[missing]
    (tmp_path / "out" / "memory.json").write_text(json.dumps(head))
    with import_folder(tmp_path / "out", tmp_path / "old") as memory:
        assert (memory.quota, memory.max_exemplars, len(memory)) == (Quota(), None, 30)
        assert (memory.eviction, memory.attrs, memory.class_names) == ("by_class", {}, {})


def test_eviction_by_priority_comes_back(tmp_path):
    with ExemplarMemory.create(tmp_path / "m", schema=schema(), max_bytes="100kB", eviction="by_priority") as memory:
        export_folder(memory, tmp_path / "out")
    with import_folder(tmp_path / "out", tmp_path / "again") as memory:
        assert memory.eviction == "by_priority"


@pytest.mark.parametrize(
    "change",
    [
        {"exmem_export": 2},
        {"schema": None},
        {"schema": {"modalities": {}}},
        {"max_bytes": "many"},
        {"max_exemplars": 1.5},
        {"quota": {}},
        {"attrs": 3},
        {"class_names": {"one": "cat"}},
        {"class_names": [1]},
    ],
)
def test_a_wrong_head_is_named_and_nothing_is_made(tmp_path, exported, change):
    head = json.loads((exported / "memory.json").read_text())
    (exported / "memory.json").write_text(json.dumps(head | change))
    with pytest.raises(DataError, match=r"memory\.json: "):
        import_folder(exported, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_an_import_that_is_broken_off_leaves_nothing_committed_and_the_memory_closed(tmp_path, exported, monkeypatch):
    def add(memory, exemplars):
        if len(memory):
            raise failure
        return original(memory, exemplars)

    original = ExemplarMemory.add
    monkeypatch.setattr(ExemplarMemory, "add", add)
    for number, failure in enumerate((ExemplarTooLargeError("too large"), KeyboardInterrupt())):
        with pytest.raises(type(failure)) as caught:
            import_folder(exported, tmp_path / str(number))
        told = "".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
        assert told.endswith(f"the memory at {tmp_path / str(number)} is incomplete, remove it")
        with ExemplarMemory.open(tmp_path / str(number), "r+") as memory:
            assert len(memory) == 0


def test_an_image_is_bytes_with_a_height_and_a_width():
    def spec(*shape, dtype="uint8"):
        return TokenSpec(positions=1, shape=shape, dtype=dtype)

    assert all(map(is_image, [spec(4, 4), spec(4, 4, 1), spec(4, 6, 3)]))
    assert not any(map(is_image, [spec(), spec(4), spec(4, 4, 2), spec(4, 4, 3, 1), spec(4, 4, dtype="int16")]))


# What is written by hand, or by other programs: by the rules of `add`, and never cast.


NUMBERS = Schema(
    {"t": TokenSpec(positions=8, dtype="int32"), "u": TokenSpec(positions=2, dtype="uint64")},
    {"b": ExtraSpec(dtype="bool"), "x": ExtraSpec(dtype="float16"), "n": ExtraSpec(shape=(2,), dtype="int64")},
)


@pytest.fixture
def numbers(tmp_path):
    tokens = {"t": TokenSet([0, 3], np.array([5, -5], np.int32)), "u": TokenSet([1], np.array([2**64 - 1], np.uint64))}
    extras = {"b": True, "x": np.float16("nan"), "n": [-(2**63), 2**63 - 1]}
    with ExemplarMemory.create(tmp_path / "m", schema=NUMBERS, max_bytes="60kB", durable=False) as memory:
        memory.add([Exemplar(tokens, label=-7, priority=np.inf, extras=extras)])
        memory.annotate(class_names={1: "one"})
        memory.commit()
        export_folder(memory, tmp_path / "out")
        given = memory.read([0]).exemplar(0)
    return tmp_path / "out", given


def test_numbers_at_the_ends_of_their_ranges_come_back(tmp_path, numbers):
    folder, given = numbers
    with import_folder(folder, tmp_path / "again") as memory:
        assert_same(memory.read([0]).exemplar(0), given)


def put(document, path, value):
    *way, last = path
    for key in way:
        document = document[key]
    document[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["tokens", "t", "positions", 0], 1.9),
        (["tokens", "t", "positions", 0], True),
        (["tokens", "t", "positions", 0], -1),
        (["tokens", "t", "positions", 1], 8),
        (["tokens", "t", "positions", 1], 2**64),
        (["tokens", "t", "positions"], "01"),
        (["tokens", "t", "values", 0], 1.9),
        (["tokens", "t", "values", 0], "7"),
        (["tokens", "t", "values", 0], True),
        (["tokens", "t", "values", 0], 2**31),
        (["tokens", "t", "values"], [1]),
        (["tokens", "t", "values"], [[1], [2, 3]]),
        (["tokens", "u", "values", 0], -1),
        (["tokens", "u", "values", 0], 2**64),
        (["extras", "b"], "x"),
        (["extras", "b"], {}),
        (["extras", "b"], 1),
        (["extras", "b"], float("nan")),
        (["extras", "x"], None),
        (["extras", "x"], "3"),
        (["extras", "x"], 1e6),
        (["extras", "x"], True),
        (["extras", "x"], 10**400),
        (["extras", "n"], 3),
        (["extras", "n"], [1, 2, 3]),
        (["extras", "n", 1], 2**63),
        (["priority"], "3"),
        (["priority"], float("nan")),
        (["priority"], True),
        (["priority"], [1.0]),
        (["label"], True),
        (["label"], 1.0),
        (["label"], 2**63),
    ],
)
def test_a_line_is_read_by_the_rules_of_add_and_named_when_it_breaks_them(tmp_path, numbers, path, value):
    file = numbers[0] / "metadata.jsonl"
    line = json.loads(file.read_text())
    put(line, path, value)
    file.write_text(json.dumps(line))
    with pytest.raises(DataError, match=r"metadata\.jsonl, line 1: "):
        import_folder(numbers[0], tmp_path / "again")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["class_names", "1"], None),
        (["max_exemplars"], True),
        (["max_exemplars"], 2**63),
        (["max_bytes"], 1e5),
        (["max_bytes"], 2**63),
        (["schema", "modalities", "t", "shape"], [2**70]),
        (["schema", "modalities", "t", "dtype"], "float128"),
        (["eviction"], "oldest"),
        (["charges"], {"means": -1}),
        (["charges"], [1]),
        (["reservoir_state"], {"seed": 0, "seen": 1, "threshold": 0.5}),
        (["attrs"], [["a", 1]]),
    ],
)
def test_the_head_is_read_by_the_rules_of_create(tmp_path, numbers, path, value):
    file = numbers[0] / "memory.json"
    head = json.loads(file.read_text())
    put(head, path, value)
    file.write_text(json.dumps(head))
    with pytest.raises(DataError, match=r"memory\.json: "):
        import_folder(numbers[0], tmp_path / "again")
    assert not (tmp_path / "again").exists()


# Where an export cannot be written, and where it fails.


def test_an_export_that_cannot_be_written_is_an_error_of_data(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    with ExemplarMemory.create(tmp_path / "m", schema=schema(), max_bytes="100kB", durable=False) as memory:
        for place in (tmp_path / "file", tmp_path / "file" / "out", "m\0", "x" * 300, "/proc/out", "\ud800", None):
            with pytest.raises(DataError):
                export_folder(memory, place)
        (tmp_path / "empty").mkdir()
        assert export_folder(memory, tmp_path / "empty") == 0
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        export_folder(memory, "~/deep/out")
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(path.name for path in (tmp_path / "home" / "deep" / "out").iterdir()) == [
        "files",
        "memory.json",
        "metadata.jsonl",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_an_export_into_a_folder_without_permission_is_an_error_of_data(tmp_path):
    with ExemplarMemory.create(tmp_path / "m", schema=schema(), max_bytes="100kB", durable=False) as memory:
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(DataError, match="choose another folder"):
            export_folder(memory, tmp_path / "closed" / "out")


def test_an_export_that_fails_leaves_nothing_behind_and_names_what_is_damaged(tmp_path, monkeypatch):
    with ExemplarMemory.create(tmp_path / "m", schema=schema("lossless"), max_bytes="500kB", durable=False) as memory:
        memory.add([exemplar(seed, label=0) for seed in range(80)])
    for shard in sorted((tmp_path / "m").glob("e*/image/c.*"))[:90:40]:
        data = bytearray(shard.read_bytes())
        data[7] ^= 4
        shard.write_bytes(data)
    damaged = sorted({slot for damage in check(tmp_path / "m") for slot in damage.slots})
    assert len(damaged) == 2
    (tmp_path / "empty").mkdir()
    with ExemplarMemory.open(tmp_path / "m") as memory:
        for folder in (tmp_path / "deep" / "out", tmp_path / "empty"):
            with pytest.raises(CorruptExemplarError, match=r"nothing was exported.*exmem repair") as caught:
                export_folder(memory, folder)
            assert f"damaged exemplars (2): {damaged}; nothing" in str(caught.value)
        monkeypatch.setattr(ExemplarMemory, "read", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export_folder(memory, tmp_path / "deep" / "out")
    assert not (tmp_path / "deep").exists()
    assert not [*(tmp_path / "empty").iterdir()]


# What belongs to the memory beside its exemplars.


def test_charges_come_back_and_count(tmp_path):
    with ExemplarMemory.create(tmp_path / "m", schema=schema(), max_bytes="200kB", durable=False) as memory:
        memory.charge("means", 50_000)
        memory.add([exemplar(seed, label=0) for seed in range(5)])
        memory.commit()
        export_folder(memory, tmp_path / "out")
    with import_folder(tmp_path / "out", tmp_path / "again") as memory:
        assert (memory.charges, memory.max_bytes, len(memory)) == ({"means": 50_000}, 200_000, 5)
    with pytest.raises(ExmemError, match="incomplete"):
        import_folder(tmp_path / "out", tmp_path / "small", max_bytes="55kB")


def arrivals(first, last):
    own = {"f": TokenSet.dense(np.zeros((1, 32), np.float32))}
    return [Exemplar(own, label=0, extras={"number": number}) for number in range(first, last)]


@pytest.mark.slow
@pytest.mark.parametrize("max_bytes", [None, "60kB"])
def test_a_stream_goes_on_where_it_was_and_stays_a_uniform_sample(tmp_path, max_bytes, in_full):
    half = 4000 if in_full else 2000
    spec = TokenSpec(positions=1, shape=(32,), dtype="float32", codec="float16")
    own = Schema({"f": spec}, {"number": ExtraSpec(dtype="int32")})
    options = {"schema": own, "max_bytes": "100kB", "eviction": "by_priority", "durable": False}
    with ExemplarMemory.create(tmp_path / "m", **options) as memory:
        stream = StreamReservoir(memory, seed=5)
        for first in range(0, half, 200):
            stream.add(arrivals(first, first + 200))
        memory.commit()
        export_folder(memory, tmp_path / "out")
        state = memory.reservoir_state
    with import_folder(tmp_path / "out", tmp_path / "again", max_bytes=max_bytes) as memory:
        stream = StreamReservoir(memory)
        assert (stream.seed, stream.seen) == (5, half)
        assert (memory.reservoir_state == state) == (max_bytes is None)
        for first in range(half, 2 * half, 200):
            stream.add(arrivals(first, first + 200))
            assert len(memory) == (np.sort(keys_of(2 * half)[: first + 200]) > stream.threshold).sum()
        held = memory.read(memory.slots).extras["number"]
        assert sorted(held.tolist()) == np.flatnonzero(keys_of(2 * half) > stream.threshold).tolist()


def keys_of(count):
    return arrival_keys(5, 0, count)
