"""Tokens know their grid: declared, kept by JSON and by stores, used wherever patches are put together."""

import json

import numpy as np
import pytest
from PIL import Image

from exmem import Exemplar, ExemplarMemory, ExtraSpec, Schema, TokenSet, TokenSpec
from exmem.errors import SchemaError
from exmem.memory.export import export_folder, import_folder
from exmem.tokens.patches import cut_patches, join_patches
from tests.exemplars import photographs


def test_a_grid_says_how_many_positions_there_are():
    spec = TokenSpec(grid=(3, 4), shape=(8, 8, 3))
    assert (spec.positions, spec.grid, spec.image_grid()) == (12, (3, 4), (3, 4))
    assert TokenSpec(grid=[3, 4], positions=12, shape=(8, 8, 3)) == spec
    assert TokenSpec(positions=12, shape=(8, 8, 3)) != spec


def test_without_a_grid_a_square_is_assumed_and_nothing_else():
    assert TokenSpec(positions=16).image_grid() == (4, 4)
    with pytest.raises(SchemaError, match=r"12 patches form no square; give the TokenSpec a grid=\(rows, columns\)"):
        TokenSpec(positions=12).image_grid()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": (3, 4), "positions": 11}, r"grid must be rows and columns of all 11 positions, got \(3, 4\)"),
        ({"grid": (12,)}, "grid must be rows and columns"),
        ({"grid": (2, 2, 3)}, "grid must be rows and columns"),
        ({"grid": (0, 4)}, "each side of shape"),
        ({"grid": (2.5, 4)}, "each side of shape"),
        ({"grid": "34"}, "not a sequence of integers"),
        ({"grid": 3}, "not a sequence of integers"),
        ({"grid": (2**13, 2**13)}, "positions must be an integer"),
        ({}, "positions must be an integer"),
    ],
)
def test_a_grid_that_is_none_is_refused(options, message):
    with pytest.raises(SchemaError, match=message):
        TokenSpec(**options)


@pytest.mark.parametrize(
    ("options", "grid", "shape"),
    [
        ({"size": 224, "patch": 16}, (14, 14), (16, 16, 3)),
        ({"size": (224, 160), "patch": 16}, (14, 10), (16, 16, 3)),
        ({"size": (48, 20)}, (1, 1), (48, 20, 3)),
        ({"size": 32}, (1, 1), (32, 32, 3)),
    ],
)
def test_images_are_described_by_size_and_patch(options, grid, shape):
    schema = Schema.images(**options, text=7, extras={"task": ExtraSpec(dtype="int16")})
    image, text = schema.modalities["image"], schema.modalities["text"]
    assert (image.grid, image.shape, image.dtype, image.codec["id"]) == (grid, shape, "uint8", "patch_jpeg")
    assert (text.positions, text.shape, text.dtype) == (7, (), "int32")
    assert [*schema.extras] == ["task"]
    assert [*Schema.images(**options).modalities] == ["image"]


@pytest.mark.parametrize(
    "options",
    [
        {"size": 30, "patch": 16},
        {"size": (32, 30), "patch": 16},
        {"size": 32, "patch": 0},
        {"size": 32, "patch": -16},
        {"size": 0, "patch": 16},
        {"size": -16},
    ],
)
def test_a_patch_that_does_not_divide_a_side_is_refused(options):
    with pytest.raises(SchemaError, match=r"does not divide|each side of shape|patch must be"):
        Schema.images(**options)


@pytest.mark.parametrize("size", ["224", 2.5, (32, 32, 3), None, (32, "a")])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(SchemaError, match="size"):
        Schema.images(size=size, patch=16)


def test_a_grid_goes_through_json_and_is_left_out_where_there_is_none():
    schema = Schema.images(size=(48, 32), patch=16, text=4)
    document = json.loads(json.dumps(schema.to_json()))
    assert Schema.from_json(document) == schema
    assert document["modalities"]["image"]["grid"] == [3, 2]
    assert "grid" not in document["modalities"]["text"]
    del document["modalities"]["image"]["grid"]
    assert Schema.from_json(document).modalities["image"].grid is None, "as stores of before are read"
    document["modalities"]["image"]["grid"] = [3, 3]
    with pytest.raises(SchemaError, match="grid must be rows and columns of all 6 positions"):
        Schema.from_json(document)


@pytest.mark.parametrize("recipe", [3, "masked", [1], {"a": {1, 2}}, {"a": object()}])
def test_a_recipe_that_is_no_json_is_refused(recipe):
    with pytest.raises(SchemaError, match="recipe"):
        Schema({"x": TokenSpec(positions=1)}, {}, recipe)


def test_a_memory_and_its_export_keep_the_grid_and_show_images_upright(tmp_path):
    schema = Schema.images(size=(48, 32), patch=16, codec="raw")
    image = photographs()[0][:48, :32]
    with ExemplarMemory.create(tmp_path / "m", schema=schema, max_bytes="100kB") as memory:
        memory.add([Exemplar({"image": TokenSet.dense(cut_patches(image[None], 16)[0])}, label=0)])
        memory.commit()
        export_folder(memory, tmp_path / "out")
    with ExemplarMemory.open(tmp_path / "m") as memory:
        assert memory.schema == schema
        patches = memory.read([0]).tokens["image"].values
        np.testing.assert_array_equal(join_patches(patches, memory.schema.modalities["image"].image_grid())[0], image)
    (line,) = [json.loads(text) for text in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
    with Image.open(tmp_path / "out" / line["tokens"]["image"]["file"]) as opened:
        np.testing.assert_array_equal(np.asarray(opened), image)
    with import_folder(tmp_path / "out", tmp_path / "again") as memory:
        assert memory.schema == schema
        np.testing.assert_array_equal(memory.read([0]).tokens["image"].values, patches)


def test_a_sheet_draws_the_declared_grid_and_says_nothing_of_squares(tmp_path):
    from exmem.report.view.exemplars import Known, _grids, _notes

    declared = Schema.images(size=(48, 32), patch=16)
    assert _grids(declared, None, (1, 1)) == {"image": (3, 2)}
    assert _grids(declared, (2, 3), None) == {"image": (2, 3)}, "what is asked for counts"
    undeclared = Schema({"image": TokenSpec(positions=6, shape=(16, 16, 3))})
    known = Known()
    assert not any("no square" in note for note in _notes(declared, {"image": (3, 2)}, known, all_shown=True))
    assert any("no square" in note for note in _notes(undeclared, {"image": (2, 3)}, known, all_shown=True))
