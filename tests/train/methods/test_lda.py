import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis as Reference

from exmem.errors import SchemaError
from exmem.train.methods import HEADS, Labelled


@pytest.mark.parametrize("shrinkage", [0.1, 0.9])
def test_it_is_discriminant_analysis_of_what_is_given_last_with_classes_that_count_the_same(shrinkage):
    rng = np.random.default_rng(0)
    labels = np.repeat([7, -2, 4], [5, 30, 12])
    features = (rng.normal(size=(3, 6))[np.repeat([0, 1, 2], [5, 30, 12])] + rng.normal(size=(47, 6))).astype(
        np.float32
    )
    head = HEADS.make("lda", shrinkage=shrinkage)
    head.fit(Labelled(features[::-1].copy(), labels))  # of before, and of no account
    head.fit(Labelled(features, labels))
    shares = np.bincount(np.unique(labels, return_inverse=True)[1]) / 47
    reference = Reference(solver="lsqr", shrinkage=shrinkage, priors=shares).fit(features, labels)
    np.testing.assert_allclose(head._weights[:, :-1], reference.coef_, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(head._weights[:, -1], reference.intercept_ - np.log(shares), rtol=2e-3, atol=2e-4)
    assert head.classes == (-2, 4, 7)


@pytest.mark.parametrize("shrinkage", [0, 1.5, "much"])
def test_a_shrinkage_that_is_none_is_refused(shrinkage):
    with pytest.raises(SchemaError, match="shrinkage"):
        HEADS.make("lda", shrinkage=shrinkage)
