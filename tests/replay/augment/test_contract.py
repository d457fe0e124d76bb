"""The contract of every augmentation, alone and one after the other, on real crops."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exmem.errors import SchemaError
from exmem.replay.augment import AUGMENTATIONS, Compose
from exmem.tokens import PaddedTokens, TokenBatch
from tests.replay.augment.cases import OPTIONS, batch, contents, generator, made

every = pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
NAMES = ["image", "coarse", "whole", "text"]


@st.composite
def batches(draw):
    count = draw(st.integers(1, 5))
    seeds = draw(st.lists(st.integers(0, 30), min_size=count, max_size=count))
    labels = draw(st.lists(st.integers(0, 1), min_size=count, max_size=count))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    return batch(seeds, labels, names=tuple(names), unknown=draw(st.booleans()))


def arrays(given_batch):
    """Every tensor of a batch, by name."""
    found = {"labels": given_batch.labels, **given_batch.extras}
    for name, tokens in given_batch.tokens.items():
        parts = {field.name: getattr(tokens, field.name) for field in dataclasses.fields(tokens)}
        found |= {f"{name}.{key}": value for key, value in parts.items() if value is not None}
    return found


def assert_same(found, expected):
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


def assert_storable(found):
    """What a memory takes: kept tokens in front, positions increasing, zeros behind; unknown tokens have no value."""
    tokens = {
        name: PaddedTokens(part.values.numpy(), part.positions.numpy(), part.valid.numpy())
        for name, part in found.tokens.items()
    }
    for exemplar in TokenBatch(tokens, found.labels.numpy()):
        assert set(exemplar.tokens) == set(tokens)
    for part in found.tokens.values():
        assert not part.values[~part.valid].any()
        assert not part.positions[~part.valid].any()
        if part.unknown is not None:
            assert not (part.unknown & ~part.valid).any()
            assert not part.values[part.unknown].any()


def test_every_augmentation_of_the_registry_is_tried():
    assert set(OPTIONS) == set(AUGMENTATIONS)


@given(
    given_batch=batches(), chain=st.lists(st.sampled_from(sorted(AUGMENTATIONS)), max_size=5), seed=st.integers(0, 9)
)
def test_any_chain_leaves_a_batch_that_can_be_stored_and_its_input_as_it_was(given_batch, chain, seed):
    before = {key: value.clone() for key, value in arrays(given_batch).items()}
    augment = Compose([made(name) for name in chain])
    found = augment(given_batch, generator=generator(seed))
    assert_storable(found)
    assert_same(arrays(given_batch), before)
    assert list(found.tokens) == list(given_batch.tokens)
    assert torch.equal(found.labels, given_batch.labels)
    assert torch.equal(found.extras["task"], given_batch.extras["task"])
    for name, tokens in given_batch.tokens.items():
        assert (found.tokens[name].unknown is None) == (tokens.unknown is None)
        assert found.tokens[name].values.dtype == tokens.values.dtype
        emptied = tokens.valid.any(1) & ~found.tokens[name].valid.any(1)
        assert not emptied.any() or {"image_exchange", "text_exchange"} & set(chain), (
            "only another exemplar's emptiness empties one"
        )
    assert_same(arrays(augment(given_batch, generator=generator(seed))), arrays(found))


@given(given_batch=batches(), seed=st.integers(0, 9))
@every
def test_a_probability_of_zero_changes_no_token(name, given_batch, seed):
    found = made(name, probability=0.0)(given_batch, generator=generator(seed))
    for modality, tokens in given_batch.tokens.items():
        for row in range(len(given_batch)):
            assert contents(found.tokens[modality], row) == contents(tokens, row)


@given(given_batch=batches(), seed=st.integers(0, 9))
@pytest.mark.parametrize("name", sorted(set(AUGMENTATIONS) - {"colour_jitter", "flip"}))
def test_tokens_come_from_their_own_place_in_an_exemplar_of_the_same_class(name, given_batch, seed):
    found = made(name, probability=1.0)(given_batch, generator=generator(seed))
    for modality, tokens in given_batch.tokens.items():
        for row, label in enumerate(given_batch.labels):
            same = (given_batch.labels == label).nonzero().flatten().tolist()
            known = {item for other in same for item in contents(tokens, other).items()}
            assert set(contents(found.tokens[modality], row).items()) <= known


@every
def test_a_batch_without_the_modality_comes_back_as_it_is(name):
    left = ("image", "coarse", "whole") if name == "text_exchange" else ("text",)
    given_batch = batch([1, 3, 5], [0, 0, 0], names=left)
    options = {"modalities": ("image",)} if name == "token_dropout" else {}
    found = made(name, probability=1.0, **options)(given_batch, generator=generator())
    assert_same(arrays(found), arrays(given_batch))


@every
def test_a_probability_outside_0_to_1_is_refused(name):
    with pytest.raises(SchemaError, match=r"probability must be in 0\.\.1, got 1\.5"):
        made(name, probability=1.5)


@every
def test_an_augmentation_is_its_options(name):
    assert made(name) == made(name)
    assert made(name) != made(name, probability=0.25)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made(name).probability = 1.0


def test_a_wrong_name_or_option_is_told_with_the_choices():
    with pytest.raises(SchemaError, match=r"unknown augmentation 'flop'; choose one of \['colour_jitter', 'flip'"):
        AUGMENTATIONS.make("flop")
    with pytest.raises(SchemaError, match=r"no option \['rate'\]; it has \['modalities', 'probability'"):
        AUGMENTATIONS.make("token_dropout", rate=0.5)
