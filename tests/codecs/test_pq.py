"""Product quantisation."""

import functools

import numpy as np
import pytest

from exmem import Exemplar, ExemplarMemory, Schema, TokenSet, TokenSpec
from exmem.codecs import ProductQuantisation, get_codec
from exmem.errors import CodecError, FormatError
from tests.exemplars import folder_bytes


def clusters(count, seed=0):
    """Vectors around a few directions, as features of classes are."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(20, 64))
    return (centres[rng.integers(0, 20, count)] + 0.1 * rng.normal(size=(count, 64))).astype(np.float32)


@functools.cache
def trained():
    return ProductQuantisation.train(clusters(2000), parts=16)


def test_training_twice_gives_the_same_codebooks():
    given = clusters(300)
    assert ProductQuantisation.train(given, parts=16) == ProductQuantisation.train(given, parts=16)


@pytest.mark.slow
def test_vectors_like_those_of_the_training_are_kept_well_in_a_byte_a_part():
    codec, given = get_codec(trained()), clusters(100, seed=5)
    payload = codec.encode(given)
    assert len(payload) == 1600
    error = np.mean((codec.decode(payload) - given) ** 2) / np.mean(given**2)
    assert error < 0.02


@pytest.mark.slow
def test_codebooks_are_stored_once_and_counted(tmp_path):
    config = trained()
    schema = Schema({"features": TokenSpec(positions=1, shape=(64,), dtype="float32", codec=config)})
    given = clusters(50, seed=6)
    with ExemplarMemory.create(tmp_path / "m", schema=schema, max_bytes="200kB") as memory:
        memory.add([Exemplar({"features": TokenSet.dense(row[None])}, label=0) for row in given])
    texts = [path.read_bytes() for path in (tmp_path / "m").rglob("*") if path.is_file()]
    assert sum(config["codebooks"].encode() in text for text in texts) == 1
    memory = ExemplarMemory.open(tmp_path / "m")
    assert memory.used_bytes == folder_bytes(tmp_path / "m") > len(config["codebooks"])
    assert memory.schema.modalities["features"].codec["codebooks"] == config["codebooks"]
    found = memory.read(memory.slots).tokens["features"].values[:, 0]
    np.testing.assert_array_equal(found, get_codec(config).decode(get_codec(config).encode(given)))


def test_wrong_codebooks_are_refused(tmp_path):
    config = ProductQuantisation.train(clusters(300), parts=16)
    for wrong in ({"codebooks": ""}, {"codebooks": "AAAA"}, {"codebooks": "?"}, {"parts": 5}, {"parts": 8}):
        with pytest.raises(CodecError):
            get_codec(config | wrong)
    with pytest.raises(CodecError, match="256 finite tokens"):
        ProductQuantisation.train(clusters(100), parts=16)
    with pytest.raises(CodecError, match="parts must divide"):
        ProductQuantisation.train(clusters(300), parts=7)
    schema = Schema({"features": TokenSpec(positions=1, shape=(64,), dtype="float32", codec=config)})
    ExemplarMemory.create(tmp_path / "m", schema=schema, max_bytes="200kB").close()
    (tmp_path / "m" / "e0" / "features" / "zarr.json").unlink()
    with pytest.raises(FormatError, match=r"features/zarr\.json is broken .*it is missing"):
        ExemplarMemory.open(tmp_path / "m")
