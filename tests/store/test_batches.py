"""Batches of arrays are encoded as their exemplars are one by one."""

import numpy as np
import pytest

from exmem.errors import InvalidExemplarError
from exmem.store.batches import encode_batch
from exmem.store.encode import encode_exemplars
from exmem.store.format.layout import Layout
from exmem.store.threads import Threads
from exmem.tokens import ExtraSpec, PaddedTokens, Schema, TokenBatch, TokenSpec

LAYOUT = Layout(
    Schema(
        {
            "image": TokenSpec(positions=9, shape=(8, 8, 3), dtype="uint8", codec="lossless"),
            "small": TokenSpec(positions=5, shape=(2,), dtype="float32"),
            "text": TokenSpec(positions=11, dtype="int32"),
        },
        {"flag": ExtraSpec(shape=(), dtype="bool"), "logits": ExtraSpec(shape=(2, 3), dtype="float16")},
    )
)


def padded(generator: np.random.Generator, count: int, name: str) -> PaddedTokens:
    spec = LAYOUT.schema.modalities[name]
    keep = generator.random((count, spec.positions)) < 0.5
    keep[0] = name != "small"
    valid = np.sort(keep, axis=1)[:, ::-1]
    positions = np.argsort(~keep, axis=1, kind="stable") * valid
    values = generator.integers(1, 100, (*valid.shape, *spec.shape)).astype(spec.dtype)  # also where nothing is valid
    return PaddedTokens(values, positions, valid)


def batch_of(count: int = 6, seed: int = 0) -> TokenBatch:
    generator = np.random.default_rng(seed)
    return TokenBatch(
        {name: padded(generator, count, name) for name in LAYOUT.schema.modalities},
        generator.integers(-5, 5, count),
        generator.normal(size=count),
        {"flag": generator.random(count) < 0.5, "logits": generator.normal(size=(count, 2, 3)).astype(np.float16)},
    )


@pytest.mark.parametrize("count", [0, 1, 6])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_batch_is_encoded_as_its_exemplars_are(count: int, threads: int) -> None:
    batch = batch_of(max(1, count), seed=count) if count else batch_of(1)
    if not count:
        batch = TokenBatch(
            {
                name: PaddedTokens(held.values[:0], held.positions[:0], held.valid[:0])
                for name, held in batch.tokens.items()
            },
            batch.labels[:0],
            None,
            {name: values[:0] for name, values in batch.extras.items()},
        )
    pool = Threads(threads)
    together, apart = encode_batch(batch, LAYOUT, threads=pool), encode_exemplars([*batch], LAYOUT, threads=pool)
    pool.close()
    assert np.array_equal(together.catalog, apart.catalog)
    assert np.array_equal(together.records, apart.records)
    assert together.pieces == apart.pieces


def test_what_has_to_be_converted_is() -> None:
    batch = batch_of()
    other = TokenBatch(
        batch.tokens, batch.labels.astype(np.uint8) % 5, None, {**batch.extras, "logits": np.ones((6, 2, 3))}
    )
    pool = Threads(1)
    together, apart = encode_batch(other, LAYOUT, threads=pool), encode_exemplars([*other], LAYOUT, threads=pool)
    assert np.array_equal(together.records, apart.records)
    assert np.array_equal(together.catalog, apart.catalog)


@pytest.mark.parametrize("wrong", ["dtype", "position", "order", "name", "nan"])
def test_what_does_not_fit_is_refused(wrong: str) -> None:
    batch = batch_of()
    tokens, extras, priorities = dict(batch.tokens), dict(batch.extras), batch.priorities
    image = tokens["image"]
    if wrong == "dtype":
        tokens["image"] = PaddedTokens(image.values.astype(np.int16), image.positions, image.valid)
    if wrong == "position":
        tokens["image"] = PaddedTokens(image.values, image.positions + 9 * image.valid, image.valid)
    if wrong == "order":
        tokens["image"] = PaddedTokens(image.values, image.positions[:, ::-1].copy(), np.ones_like(image.valid))
    if wrong == "name":
        extras["other"] = extras.pop("flag")
    if wrong == "nan":
        priorities = np.full(6, np.nan)
    with pytest.raises(InvalidExemplarError, match=r"exemplar 0|strictly increasing"):
        encode_batch(TokenBatch(tokens, batch.labels, priorities, extras), LAYOUT, threads=Threads(1))
