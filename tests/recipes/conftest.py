"""The backbones of all forms, each loaded once."""

import functools

import pytest

from tests.recipes.cases import FORMS


@pytest.fixture(scope="session")
def backbone(written):
    @functools.cache
    def load_one(form):
        return FORMS[form](written)

    return load_one
