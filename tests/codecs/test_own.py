"""A codec of one's own is refused where a memory could not be opened or read again, and missed by its name."""

import numpy as np
import pytest

from exmem import ExemplarMemory, Schema, TokenSpec
from exmem.codecs import CODECS, Lossless, Raw
from exmem.errors import CodecError, InvalidExemplarError
from exmem.memory.maintenance import check, repair


class OtherName(Raw):
    codec_id = "other"


class Forgetful(Lossless):
    codec_id = "own"

    def get_config(self):
        return {name: value for name, value in super().get_config().items() if name != "level"}


class Own(Raw):
    codec_id = "own"


class Nothing(Own):
    def encode(self, buf):
        return None


def create(place, **options):
    schema = Schema({"t": TokenSpec(positions=4, codec={"id": "own", **options})})
    return ExemplarMemory.create(place, schema=schema, max_bytes="20kB", durable=False)


@pytest.mark.parametrize(
    ("codec", "options", "message"),
    [(OtherName, {}, "get_config says id 'other'"), (Forgetful, {"level": 3}, r"get_config leaves out \['level'\]")],
)
def test_a_codec_that_cannot_be_made_again_from_what_is_recorded_is_refused(tmp_path, codec, options, message):
    CODECS.add("own", codec)
    with pytest.raises(CodecError, match=message):
        create(tmp_path, **options)
    assert not [*tmp_path.iterdir()]


def test_a_codec_that_returns_no_bytes_is_named_and_nothing_is_stored(tmp_path):
    CODECS.add("own", Nothing)
    with create(tmp_path) as memory:
        for values in (np.zeros((1, 4), np.uint8), np.zeros((40, 4), np.uint8)):
            with pytest.raises(InvalidExemplarError, match=r"exemplar 0, 't': expected bytes .* got NoneType"):
                memory.add_batch({"t": values}, [0] * len(values))
        assert len(memory) == 0


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_opening_where_the_codec_is_not_known_names_it_and_changes_nothing(tmp_path, mode):
    CODECS.add("own", Own)
    with create(tmp_path) as memory:
        memory.add_batch({"t": np.array([[1, 2, 3, 4]], np.uint8)}, [0])
    del CODECS._parts["own"]  # as in a process that never added it
    for look in (lambda: ExemplarMemory.open(tmp_path, mode), lambda: check(tmp_path), lambda: repair(tmp_path)):
        with pytest.raises(
            CodecError, match=r"'t' was encoded by the codec 'own', which is not to be had here .* before opening$"
        ):
            look()
    CODECS.add("own", "no_such_module:Own")  # an entry point that is wrong
    with pytest.raises(CodecError, match=r"'own', which is not to be had here .* imported from no_such_module"):
        ExemplarMemory.open(tmp_path, mode)
    del CODECS._parts["own"]
    CODECS.add("own", Own)
    with ExemplarMemory.open(tmp_path, mode) as memory:
        assert memory.read(memory.slots).tokens["t"].values.tolist() == [[1, 2, 3, 4]]
