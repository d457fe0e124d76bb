"""Scorers start from hidden tokens that are there already: the same maps, and no second pass of the trunk."""

import numpy as np
import pytest
import torch

from exmem.masking.scorers import SCORERS
from tests.backbones.models import load
from tests.masking.scorers.cases import FORMS, sparse_batch, whole_batch
from tests.masking.scorers.test_contract import CLOSE, assert_same

PLAIN = ("centre", "random")
EVERY = {name: ({} if name in PLAIN else {"layers": None}) for name in SCORERS}


@pytest.fixture
def passes(monkeypatch):
    """Count the passes of a model's trunk."""

    def watch(model):
        runs, embed = [], model.embed
        monkeypatch.setattr(
            model, "embed", lambda batch, *, gradient=False: (runs.append(gradient), embed(batch, gradient=gradient))[1]
        )
        return runs

    return watch


@pytest.mark.one_in(3)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SCORERS)
def test_maps_are_the_same_from_hidden_tokens(name, form, backbone):
    model = backbone(form)
    for batch in (whole_batch(model), sparse_batch(model)):
        for scorer in (SCORERS.make(name), SCORERS.make(name, **EVERY[name])):
            with torch.no_grad():
                hidden = model.embed(batch)
            assert_same(scorer(model, batch, hidden=hidden), scorer(model, batch), **CLOSE)


TUNED = [name for name in SCORERS if name not in {*PLAIN, "grad_attention"}]


@pytest.mark.parametrize("name", TUNED)
@pytest.mark.parametrize("kind", ["joint", "vilt", "clip", "vit", "bert"])
def test_the_trunk_is_run_only_where_a_chosen_layer_lies_in_it(name, kind, written, passes):
    model = load(kind, written[kind])
    first, number = model.first_tuned_layer, len(model.attention_taps())
    assert 0 < first < number, "a trunk, and tuned blocks above it"
    batch = whole_batch(model)
    hidden = model.embed(batch)
    runs = passes(model)
    for layers, expected in (((-1,), 0), (range(first, number), 0), ((first - 1, -1), 1), ((0,), 1), (None, 1)):
        runs.clear()
        SCORERS.make(name, layers=layers)(model, batch, hidden=hidden)
        assert len(runs) == expected, layers
        runs.clear()
        SCORERS.make(name, layers=layers)(model, batch)
        assert len(runs) == 1, "without hidden tokens it is run once"


@pytest.mark.parametrize("name", PLAIN)
def test_scorers_that_look_at_no_model_run_nothing(name, written, passes):
    model = load("joint", written["joint"])
    runs = passes(model)
    assert SCORERS.make(name)(model, whole_batch(model)).hidden is None
    assert not runs


def test_gradients_need_a_pass_of_their_own(written, passes):
    model = load("joint", written["joint"])
    batch = whole_batch(model)
    hidden = model.embed(batch)
    runs = passes(model)
    SCORERS.make("grad_attention", layers=(-1,))(model, batch, hidden=hidden)
    assert runs == [True]


@pytest.mark.parametrize("kind", ["joint", "vilt", "clip", "siglip", "vit", "dinov2", "bert"])
@pytest.mark.parametrize("name", ["cls_attention", "attention_rollout", "cim_box", "cls_diverse"])
def test_maps_hold_what_the_trunk_made_of_the_batch(name, kind, backbone):
    if name == "cim_box" and kind == "bert":
        pytest.skip("it scores images")
    model = backbone(kind)
    batch = sparse_batch(model)
    with torch.no_grad():
        expected = model.embed(batch)
    maps = SCORERS.make(name)(model, batch)
    assert maps.hidden.tensors().keys() == expected.tensors().keys()
    for part, tensor in expected.tensors().items():
        np.testing.assert_allclose(maps.hidden.tensors()[part].numpy(), tensor.numpy(), err_msg=part, **CLOSE)
    again = SCORERS.make(name, layers=(-1,))(model, batch, hidden=maps.hidden)
    assert again.hidden is maps.hidden, "what one scorer made serves the next"
