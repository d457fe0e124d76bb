"""Parts of our methods beside those of PyCIL and PILOT: the same numbers in, the same numbers out."""

import sys
import types

import numpy as np
import pytest
import torch

from exmem.train.learner import Learner
from exmem.train.losses import bias_correction
from exmem.train.methods import Labelled
from exmem.train.methods.ranpac import RanPac
from tests.integrations.peers.pilot_peer import loaded

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("old", "new"), [(2, 3), (10, 1)])
def test_weights_are_aligned_as_in_pycil(old, new):
    weights = torch.randn(old + new, 7, generator=torch.Generator().manual_seed(old))
    weights[old:] *= 3
    theirs = types.SimpleNamespace(fc=torch.nn.Linear(7, old + new))
    theirs.fc.weight.data.copy_(weights)
    with loaded("PyCIL"):
        sys.modules["utils.inc_net"].IncrementalNet.weight_align(theirs, new)
    ours = types.SimpleNamespace(weight=torch.nn.Parameter(weights), classes=tuple(range(old + new)), _new=new)
    Learner.align(ours)
    torch.testing.assert_close(ours.weight.detach(), theirs.fc.weight.detach())


@pytest.mark.parametrize("number", [40, 300])
def test_the_head_of_ranpac_is_that_of_pilot(number):
    rng = np.random.default_rng(number)
    labels = rng.permutation(np.arange(number) % 4)
    features = (rng.normal(size=(4, 6))[labels] + 0.4 * rng.normal(size=(number, 6))).astype(np.float32)
    ours = RanPac(projection=50, seed=3)
    ours.fit(Labelled(features, labels))
    rows = torch.relu(torch.from_numpy(features) @ torch.from_numpy(ours._matrix)).double()
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(labels), 4).double()
    order = np.random.default_rng(3).permutation(number)  # ours are shuffled; theirs come from a shuffled loader
    with loaded("LAMDA-PILOT") as peer:
        theirs = peer.method("ranpac").Learner.optimise_ridge_parameter
        strength = theirs(types.SimpleNamespace(), rows[order], one_hot[order])
    assert ours.strength == strength
    weights = torch.linalg.solve(rows.T @ rows + strength * torch.eye(50).double(), rows.T @ one_hot).T
    np.testing.assert_allclose(ours._weights, weights.numpy(), atol=2e-3 * np.abs(weights.numpy()).max())


def test_a_bias_correction_gives_the_logits_of_pycils_bias_layer_and_no_worse_numbers():
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(200, 5, generator=generator), torch.arange(200) % 5
    logits[torch.arange(200), targets] += 1.5
    logits[:, 3:] = 2 * logits[:, 3:] + 1  # biased to the two new classes
    alpha, beta = bias_correction(logits, targets, old=3)
    with loaded("PyCIL"):
        layer = sys.modules["utils.inc_net"].BiasLayer_BIC()
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        for _ in range(3000):  # theirs is fitted by steps, ours to the end
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(layer(logits, 3, 5), targets)
            loss.backward()
            optimizer.step()
        assert layer.get_params() == pytest.approx((alpha, beta), abs=0.02)
        with torch.no_grad():
            layer.alpha.fill_(alpha)
            layer.beta.fill_(beta)
            best = torch.nn.functional.cross_entropy(layer(logits, 3, 5), targets)
        assert best <= loss + 1e-6


def test_a_cosine_head_is_that_of_pilot():
    weights, features = (torch.randn(rows, 6, generator=torch.Generator().manual_seed(rows)) for rows in (4, 9))
    ours = types.SimpleNamespace(scale=torch.tensor(7.0), weight=weights, bias=torch.zeros(4))
    with loaded("LAMDA-PILOT"):
        theirs = sys.modules["backbone.linears"].CosineLinear(6, 4)
        theirs.weight.data.copy_(weights)
        theirs.sigma.data.fill_(7.0)
        expected = theirs(features)["logits"]
    torch.testing.assert_close(Learner.classify(ours, features), expected.detach())
