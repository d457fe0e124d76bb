"""Memories as plain folders, and back."""

import json

import numpy as np
import pytest
from PIL import Image

from exmem import Exemplar, ExemplarMemory, ExtraSpec, Schema, TokenSet, TokenSpec
from exmem.errors import DataError, ExemplarTooLargeError
from exmem.memory.export import export_folder, import_folder, is_image
from exmem.memory.quota import Quota
from tests.exemplars import assert_same, exemplar, patches, schema


@pytest.fixture
def exported(tmp_path):
    with ExemplarMemory.create(tmp_path / "m", schema=schema("patch_webp"), max_bytes="500kB") as memory:
        memory.add([exemplar(seed, label=seed % 3, priority=[-np.inf, 1.5][seed % 2]) for seed in range(80)])
        memory.commit()
        assert export_folder(memory, tmp_path / "out") == 80
    return tmp_path / "out"


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


def test_a_folder_that_is_no_export_or_not_empty_is_refused(tmp_path, exported):
    with pytest.raises(DataError, match=r"memory\.json"):
        import_folder(tmp_path, tmp_path / "again")
    with ExemplarMemory.open(tmp_path / "m") as memory, pytest.raises(DataError, match="not empty"):
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
