"""Product quantisation."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exmem import Exemplar, ExemplarMemory, Schema, TokenSet, TokenSpec
from exmem.codecs import ProductQuantisation, get_codec
from exmem.codecs.tables import to_text
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


@pytest.mark.parametrize("shared", [False, True])
def test_sixteen_centres_take_half_a_byte_a_part_and_a_sixteenth_of_the_codebooks(shared):
    config = ProductQuantisation.train(clusters(500), parts=32, centres=16, shared=shared)
    codec, tokens = get_codec(config), clusters(100, seed=5)
    payload = codec.encode(tokens)
    assert len(payload) == 1600
    assert len(config["codebooks"]) < (400 if shared else 2_000)
    error = np.mean((codec.decode(payload) - tokens) ** 2) / np.mean(tokens**2)
    assert error < (0.25 if shared else 0.05)


def test_an_odd_number_of_half_bytes_ends_with_zeros():
    codec = get_codec(ProductQuantisation.train(clusters(300)[:, :5], parts=5, centres=16))
    payload = codec.encode(clusters(4)[:, :5])
    assert len(payload) == 4 * 3
    assert all(byte < 16 for byte in payload[2::3])


def test_each_part_becomes_the_nearest_of_its_centres():
    codec, tokens = get_codec(trained()), clusters(40, seed=5)
    other = clusters(200, seed=6)
    candidates = codec.decode(codec.encode(other))
    found = codec.decode(codec.encode(tokens))
    deviation = clusters(2000).std(0)  # distances are those of whitened values
    errors = (((tokens - found) / deviation) ** 2).reshape(40, 16, 4).sum(2)
    others = (((tokens[:, None] - candidates) / deviation) ** 2).reshape(40, 200, 16, 4).sum(3).min(1)
    # The deviation is rounded up by up to 4.4 %, in each channel differently.
    assert (errors <= others * 1.1 + 1e-6).all()


def test_whitened_channels_of_any_scale_are_kept_alike():
    scales = np.where(np.arange(64) % 2, 1_000, 0.01).astype(np.float32)
    errors = {}
    for whiten in (True, False):
        codec = get_codec(ProductQuantisation.train(clusters(600) * scales, parts=16, whiten=whiten))
        tokens = clusters(100, seed=5) * scales
        errors[whiten] = (((codec.decode(codec.encode(tokens)) - tokens) / scales) ** 2).mean(0)
    assert errors[True].max() < 0.2
    assert errors[False][::2].min() > 0.2


@pytest.mark.parametrize(("width", "parts"), [(384, 64), (768, 96), (1_152, 144)])
def test_the_codebooks_are_small(width, parts):
    tokens = np.random.default_rng(0).normal(size=(300, width)).astype(np.float32)
    few = ProductQuantisation.train(tokens, parts=parts, centres=16)["codebooks"]
    assert len(few) < 20 * width
    shared = ProductQuantisation.train(tokens, parts=parts, shared=True)["codebooks"]
    assert len(shared) < 3 * width + 2_500


@pytest.mark.parametrize("whiten", [False, True])
def test_values_far_from_those_of_the_training_become_the_outermost_centre(whiten):
    tokens = np.linspace(-1, 1, 300)[:, None]
    codec = get_codec(ProductQuantisation.train(tokens, parts=1, centres=16, whiten=whiten))
    given_values = np.array([[1e300], [-1e300], [5]])
    found = codec.decode(codec.encode(given_values)).ravel()
    every = codec.decode(codec.encode(tokens))
    assert found.tolist() == [every.max(), every.min(), every.max()]


@given(payload=st.binary(min_size=32, max_size=32))
def test_any_bytes_are_codes(payload):
    found = get_codec(trained()).decode(payload)
    assert found.shape == (2, 64)
    assert np.isfinite(found).all()


def test_wrong_codebooks_are_refused(tmp_path):
    config = ProductQuantisation.train(clusters(300), parts=16)
    wrong_options = [{"codebooks": ""}, {"codebooks": "AAAA"}, {"codebooks": "?"}, {"codebooks": 5}]
    wrong_options += [{"parts": 5}, {"parts": 8}, {"centres": 16}, {"whiten": False}, {"shared": True}]
    for wrong in wrong_options:
        with pytest.raises(CodecError, match=r"codebooks|parts must divide"):
            get_codec(config | wrong)
    with pytest.raises(CodecError, match="centres must be 16 or 256"):
        get_codec(config | {"centres": 64})
    for largest in (np.nan, np.inf, 3e38):  # the last one, times 31, is beyond float32
        data = np.float32(largest).tobytes() + bytes(16) + b"\x1f" * (256 * 64)
        with pytest.raises(CodecError, match="out of range"):
            get_codec(config | {"whiten": False, "codebooks": to_text(data)})
    with pytest.raises(CodecError, match="whiten must be True or False, got 'no'"):
        get_codec(config | {"whiten": "no"})
    with pytest.raises(CodecError, match="where they are not whitened"):
        ProductQuantisation.train(clusters(300) * 1e20, parts=16, whiten=False)
    with pytest.raises(CodecError, match="256 parts of tokens or more"):
        ProductQuantisation.train(clusters(10), parts=16, shared=True)
    with pytest.raises(CodecError, match="256 finite tokens"):
        ProductQuantisation.train(clusters(100), parts=16)
    with pytest.raises(CodecError, match="parts must divide"):
        ProductQuantisation.train(clusters(300), parts=7)
    schema = Schema({"features": TokenSpec(positions=1, shape=(64,), dtype="float32", codec=config)})
    ExemplarMemory.create(tmp_path / "m", schema=schema, max_bytes="200kB").close()
    (tmp_path / "m" / "e0" / "features" / "zarr.json").unlink()
    with pytest.raises(FormatError, match=r"features/zarr\.json is broken .*it is missing"):
        ExemplarMemory.open(tmp_path / "m")
