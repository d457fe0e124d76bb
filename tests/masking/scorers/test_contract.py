"""What every scorer promises, on every form of backbone."""

import numpy as np
import pytest
import torch

from exmem.errors import InvalidExemplarError, SchemaError
from exmem.masking.scorers import SCORERS
from exmem.tokens.tensors import TensorBatch
from tests.masking.scorers.cases import FORMS, alone, shuffled, sparse_batch, whole_batch

pytestmark = [pytest.mark.one_in(3), pytest.mark.parametrize("name", SCORERS), pytest.mark.parametrize("form", FORMS)]
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # float32, sums in another order, through three layers of large weights


def arrays(maps):
    """Every array of score maps by name."""
    found = {f"{part}.{name}": array for part in ("scores", "valid") for name, array in getattr(maps, part).items()}
    crosses = {name: getattr(maps, name) for name in ("text_to_image", "image_to_text")}
    return found | {name: cross for name, cross in crosses.items() if cross is not None}


def assert_same(found, expected, **tolerance):
    assert arrays(found).keys() == arrays(expected).keys()
    for name, array in arrays(found).items():
        np.testing.assert_allclose(array, arrays(expected)[name], err_msg=name, **tolerance)


def test_every_modality_of_the_model_has_finite_scores_of_dense_length(name, form, backbone):
    model = backbone(form)
    maps = SCORERS.make(name)(model, sparse_batch(model))
    lengths = {modality: spec.positions for modality, spec in model.token_specs().items()}
    assert maps.scores.keys() == maps.valid.keys() == lengths.keys()
    for modality, scores in maps.scores.items():
        assert (scores.shape, scores.dtype) == ((2, lengths[modality]), np.float32)
        assert np.isfinite(scores).all()
        assert (scores[~maps.valid[modality]] == 0).all()
        # Relevance is 0 wherever all gradients are negative.
        assert np.ptp(scores[maps.valid[modality]]) > 0 or name == "grad_attention"
    counts = {modality: valid.sum(1).tolist() for modality, valid in maps.valid.items()}
    assert counts == {modality: {"image": [11, 7], "text": [5, 3]}[modality] for modality in lengths}
    if len(lengths) == 1:
        assert maps.text_to_image is maps.image_to_text is None
        return
    for cross, (rows, columns) in ((maps.text_to_image, ("text", "image")), (maps.image_to_text, ("image", "text"))):
        assert (cross.shape, cross.dtype) == ((2, lengths[rows], lengths[columns]), np.float32)
        assert np.isfinite(cross).all()
        assert (cross[~(maps.valid[rows][:, :, None] & maps.valid[columns][:, None, :])] == 0).all()


def test_scores_do_not_depend_on_the_rest_of_the_batch_nor_on_padding(name, form, backbone):
    model, scorer = backbone(form), SCORERS.make(name)
    batch = sparse_batch(model)
    together = arrays(scorer(model, batch))
    for row in range(2):
        for part, array in arrays(scorer(model, alone(batch, row))).items():
            np.testing.assert_allclose(array[0], together[part][row], err_msg=part, **CLOSE)


def test_the_order_of_tokens_does_not_matter(name, form, backbone):
    model, scorer = backbone(form), SCORERS.make(name)
    batch = sparse_batch(model)
    assert_same(scorer(model, shuffled(batch)), scorer(model, batch), **CLOSE)


def test_scoring_twice_gives_the_same_bits_whatever_mode_the_caller_is_in(name, form, backbone):
    model, scorer = backbone(form), SCORERS.make(name)
    batch = sparse_batch(model)
    expected = scorer(model, batch)
    assert_same(scorer(model, batch), expected, rtol=0)
    with torch.no_grad():
        assert_same(scorer(model, batch), expected, rtol=0)
    with torch.inference_mode():
        assert_same(scorer(model, sparse_batch(model)), expected, rtol=0)


def test_the_model_is_left_as_it_was(name, form, backbone):
    model = backbone(form)
    batch = whole_batch(model)
    before = model(batch).detach()
    trained = [parameter.requires_grad for parameter in model.parameters()]
    SCORERS.make(name)(model, batch)
    torch.testing.assert_close(model(batch).detach(), before, rtol=0, atol=0)
    assert [parameter.requires_grad for parameter in model.parameters()] == trained
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_batch_without_a_modality_scores_the_other(name, form, backbone):
    model = backbone(form)
    batch = whole_batch(model)
    if len(batch.tokens) == 1:
        pytest.skip("the model has one modality")
    for missing in batch.tokens:
        rest = {modality: tokens for modality, tokens in batch.tokens.items() if modality != missing}
        if form in {"siglip", "toy of two towers"} and missing == "image" and name not in {"centre", "random"}:
            with pytest.raises(InvalidExemplarError, match="the layer did not run"):
                SCORERS.make(name)(model, TensorBatch(rest, batch.labels))
            continue  # without images, nothing is left that attends
        maps = SCORERS.make(name)(model, TensorBatch(rest, batch.labels))
        assert not maps.valid[missing].any()
        assert not maps.scores[missing].any()
        assert not maps.text_to_image.any()
        assert all(maps.valid[modality].any(1).all() for modality in rest)


def test_a_layer_that_is_not_there_is_refused(name, form, backbone):
    if name in {"centre", "random"}:
        pytest.skip("the scorer reads no layers")
    with pytest.raises(SchemaError, match=r"layers \[-5\] do not exist"):
        SCORERS.make(name, layers=(-5,))(backbone(form), whole_batch(backbone(form)))
    with pytest.raises(SchemaError, match="at least one"):
        SCORERS.make(name, layers=())
    for wrong in (3, "all", ["a"], [0.5]):
        with pytest.raises(SchemaError, match="expected a list of whole numbers"):
            SCORERS.make(name, layers=wrong)
