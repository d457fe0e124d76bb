import numpy as np
import pytest

from exmem import Exemplar, ExemplarMemory, ExtraSpec, PaddedTokens, Schema, TokenBatch, TokenSet, TokenSpec
from exmem.errors import InvalidExemplarError, SchemaError
from tests.exemplars import exemplar, schema


@pytest.mark.parametrize(
    "options",
    [
        {"positions": 0},
        {"positions": 1.5},
        {"positions": True},
        {"positions": 4, "shape": (0,)},
        {"positions": 4, "shape": ("a",)},
        {"positions": 4, "dtype": "object"},
        {"positions": 4, "dtype": "complex64"},
        {"positions": 4, "dtype": "no such dtype"},
        {"positions": 4, "codec": 3},
        {"positions": 4, "codec": {"quality": 3}},
        {"positions": 4, "shape": (2**15, 2**15)},
    ],
)
def test_token_spec_refuses_what_cannot_be_stored(options):
    with pytest.raises(SchemaError):
        TokenSpec(**options)


@pytest.mark.parametrize("name", ["Image", "a/b", "..", "", "catalog", "a" * 33, 3])
def test_schema_refuses_names_that_are_no_plain_names(name):
    with pytest.raises(SchemaError, match="not allowed"):
        Schema({name: TokenSpec(positions=1)})


def test_schema_refuses_to_hold_nothing_and_wrong_types():
    with pytest.raises(SchemaError, match="at least one"):
        Schema({})
    with pytest.raises(SchemaError, match="expected TokenSpec"):
        Schema({"image": ExtraSpec()})


def test_schema_survives_json():
    schema = Schema(
        {"image": TokenSpec(positions=9, shape=(8, 8, 3), codec={"id": "patch_jpeg", "quality": 60})},
        {"logits": ExtraSpec(shape=(10,), dtype="float16")},
    )
    assert Schema.from_json(schema.to_json()) == schema


@pytest.mark.parametrize("document", [{}, {"modalities": {}, "extras": {}, "more": 1}, {"modalities": 3, "extras": {}}])
def test_schema_refuses_json_that_is_no_schema(document):
    with pytest.raises(SchemaError):
        Schema.from_json(document)


@pytest.mark.parametrize("positions", [[1, 1], [2, 1], [-1, 0], [[0, 1]], [0.5, 1.5], [0, 1, 2]])
def test_token_set_refuses_positions_that_are_not_strictly_increasing(positions):
    with pytest.raises(InvalidExemplarError):
        TokenSet(positions, np.zeros((2, 3)))


def test_token_set_names_the_two_positions_that_are_out_of_order():
    with pytest.raises(InvalidExemplarError, match="got 5 before 2"):
        TokenSet([1, 5, 2], np.zeros(3))


def test_kept_takes_the_tokens_where_keep_is_true():
    tokens = TokenSet.kept(np.array([10, 11, 12, 13]), np.array([True, False, False, True]))
    assert tokens.positions.tolist() == [0, 3]
    assert tokens.values.tolist() == [10, 13]
    with pytest.raises(InvalidExemplarError, match="keep must be bool"):
        TokenSet.kept(np.arange(4), np.ones(4))


def test_batch_gives_its_exemplars_back_without_padding():
    tokens = PaddedTokens(
        np.array([[5, 6], [7, 0]]), np.array([[0, 2], [1, 0]]), np.array([[True, True], [True, False]])
    )
    batch = TokenBatch({"text": tokens}, np.array([3, 4]))
    first, second = batch
    assert (first.label, first.tokens["text"].positions.tolist(), first.tokens["text"].values.tolist()) == (
        3,
        [0, 2],
        [5, 6],
    )
    assert (second.label, second.tokens["text"].positions.tolist()) == (4, [1])


def test_padding_must_be_at_the_end_of_a_row():
    with pytest.raises(InvalidExemplarError, match="padding"):
        PaddedTokens(np.zeros((1, 2)), np.zeros((1, 2), int), np.array([[False, True]]))


def test_batch_entries_must_agree_on_the_number_of_exemplars():
    tokens = PaddedTokens(np.zeros((2, 1)), np.zeros((2, 1), int), np.ones((2, 1), bool))
    with pytest.raises(InvalidExemplarError, match="expected 3 exemplars"):
        TokenBatch({"text": tokens}, np.zeros(3, int))


def test_token_sets_are_padded_to_the_longest():
    found = PaddedTokens.of(
        [
            TokenSet([1, 3, 8], np.array([10, 30, 80], np.int32)),
            TokenSet([], np.zeros(0, np.int32)),
            TokenSet([5], np.array([50], np.int32)),
        ]
    )
    assert found.positions.tolist() == [[1, 3, 8], [0, 0, 0], [5, 0, 0]]
    assert found.values.tolist() == [[10, 30, 80], [0, 0, 0], [50, 0, 0]]
    assert found.valid.tolist() == [[True] * 3, [False] * 3, [True, False, False]]
    assert found.values.dtype == np.int32
    nothing = PaddedTokens.of([TokenSet([], np.zeros((0, 2, 2), np.uint8))] * 2)
    assert nothing.values.shape == (2, 0, 2, 2)


def test_token_sets_of_several_kinds_make_no_batch():
    with pytest.raises(InvalidExemplarError, match=r"got \['int32 of shape \(\)', 'uint8 of shape \(2,\)'\]"):
        PaddedTokens.of([TokenSet([0], np.zeros(1, np.int32)), TokenSet([0], np.zeros((1, 2), np.uint8))])
    with pytest.raises(InvalidExemplarError, match=r"got \['float32 of shape \(\)', 'float64 of shape \(\)'\]"):
        PaddedTokens.of([TokenSet([0], np.zeros(1, np.float32)), TokenSet([0], np.zeros(1))])
    with pytest.raises(InvalidExemplarError, match=r"got \[\]"):
        PaddedTokens.of([])


def test_exemplars_become_the_batch_that_a_memory_returns_of_them(tmp_path):
    exemplars = [exemplar(seed, label=seed, priority=-seed, kept=kept) for seed, kept in enumerate([3, 16, 0, 7])]
    with ExemplarMemory.create(tmp_path / "m", schema=schema("raw"), max_bytes="1MB", durable=False) as memory:
        slots = memory.add(exemplars).slots
        memory.commit()
        expected = memory.read(slots)
    found = TokenBatch.of(exemplars)
    assert found.tokens.keys() == expected.tokens.keys()
    for name, tokens in expected.tokens.items():
        for part in ("values", "positions", "valid"):
            np.testing.assert_array_equal(getattr(found.tokens[name], part), getattr(tokens, part), strict=True)
    np.testing.assert_array_equal(found.labels, expected.labels, strict=True)
    np.testing.assert_array_equal(found.priorities, expected.priorities, strict=True)
    for name, values in expected.extras.items():
        np.testing.assert_array_equal(found.extras[name], values, strict=True)


def test_exemplars_of_several_schemas_make_no_batch():
    one = TokenSet([0], np.zeros(1))
    for wrong in (
        [],
        [Exemplar({"image": one}, label=0), Exemplar({"text": one}, label=0)],
        [Exemplar({"image": one}, label=0), Exemplar({"image": one}, label=0, extras={"task": 1})],
    ):
        with pytest.raises(InvalidExemplarError, match=f"same modalities and extra fields, got {len(wrong)}"):
            TokenBatch.of(wrong)
