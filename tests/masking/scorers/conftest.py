"""The backbones of all forms, each loaded once; a test that changes one loads its own."""

import functools

import pytest

from tests.masking.scorers.cases import FORMS


@pytest.fixture(scope="session")
def backbone(written):
    @functools.cache
    def load_one(form):
        return FORMS[form](written)

    return load_one
