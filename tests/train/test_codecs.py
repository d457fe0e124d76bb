"""Trained codecs are shared between runs whose exemplars are the same."""

import numpy as np
import pytest

from exmem.codecs import CODECS
from exmem.recipes import BoundRecipe, Recipe
from exmem.train.codecs import trained_codec


@pytest.fixture
def trainings(monkeypatch):
    """How often a codec is trained."""
    counted, train = [], CODECS["exmem.pq"].train

    def counting(values, **options):
        counted.append(len(values))
        return train(values, **options)

    monkeypatch.setattr(CODECS["exmem.pq"], "train", counting)
    return counted


def test_a_codec_is_trained_once_for_the_same_exemplars(backbone, data, trainings, cache, monkeypatch, tmp_path):
    monkeypatch.setattr("exmem.train.cache.cache_dir", lambda: tmp_path)
    model, train = backbone(), data[0]
    recipe = Recipe.of("hidden").refined(codec="pq:parts=8,centres=16", keep="top_k:k=8")
    rows = np.arange(len(train))
    images, texts = train.images(rows, model.image_sides), list(train.texts)
    schemas = []
    for count in (32, 32, 31):
        bound = BoundRecipe(recipe, model)
        exemplars = bound.make(images[:count], texts[:count], train.labels[:count])
        before = len(trainings)
        schemas.append(bound.schema_for(exemplars, codec=trained_codec(bound, exemplars)))
        assert len(trainings) - before == (0 if len(schemas) == 2 else 1)
    assert (
        schemas[0]
        == schemas[1]
        == BoundRecipe(recipe, model).schema_for(BoundRecipe(recipe, model).make(images, texts, train.labels))
    )
    assert schemas[2] != schemas[0]


def test_what_is_not_trained_needs_no_samples(backbone, trainings):
    bound = BoundRecipe("half_jpeg", backbone())
    assert trained_codec(bound) is None
    assert trainings == []
