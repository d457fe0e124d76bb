"""Memories as plain folders, and back."""

import json

import numpy as np
import pytest
from PIL import Image

from exmem import Exemplar, ExemplarMemory, ExtraSpec, Schema, TokenSet, TokenSpec
from exmem.errors import DataError
from exmem.portable import export_folder, import_folder
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


def test_pictures_show_patches_in_their_places(exported):
    line = json.loads((exported / "metadata.jsonl").read_text().splitlines()[7])
    with Image.open(exported / line["tokens"]["image"]["file"]) as opened:
        picture = np.asarray(opened)
    assert picture.shape == (64, 64, 3)
    place = line["tokens"]["image"]["positions"][0]
    top, left = 16 * (place // 4), 16 * (place % 4)
    np.testing.assert_array_equal(picture[top : top + 16, left : left + 16], patches(7)[place])


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
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_kept(tmp_path, exported, change):
    lines = (exported / "metadata.jsonl").read_text().splitlines()
    lines[70] = json.dumps(json.loads(lines[70]) | change)
    (exported / "metadata.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"line 71|leads out"):
        import_folder(exported, tmp_path / "again").close()
    assert len(ExemplarMemory.open(tmp_path / "again")) == 0


def test_a_folder_that_is_no_export_or_not_empty_is_refused(tmp_path, exported):
    with pytest.raises(DataError, match=r"memory\.json"):
        import_folder(tmp_path, tmp_path / "again")
    with ExemplarMemory.open(tmp_path / "m") as memory, pytest.raises(DataError, match="not empty"):
        export_folder(memory, exported)
