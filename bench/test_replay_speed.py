"""A training step on kept tokens against the dense step, at the size of ViLT-B/32.

Run `make bench`. The two sides run in turn in one process; the ratio is reported, never asserted.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import ViltConfig, ViltModel

from bench.timing import interleaved
from exmem import Exemplar, ExemplarMemory, Schema, TokenSet
from exmem.backbones import Vilt
from exmem.recipes import Restorer
from exmem.replay import Pipeline
from exmem.tokens.tensors import TensorBatch
from tests.exemplars import patches

BATCH, GRID, PATCH, TEXT = 4, 12, 32, 40
KEPT_PATCHES, KEPT_TEXT = 58, 14  # 40 % of 144, 35 % of 40


@pytest.fixture(scope="module")
def backbone():
    """ViLT-B/32 with random weights: all of its 12 blocks get gradients of all their weights, as in full tuning."""
    torch.manual_seed(0)
    model = ViltModel(ViltConfig(), add_pooling_layer=False)
    backbone = Vilt(model, SimpleNamespace(cls_token_id=101), image_size=GRID * PATCH, max_text=TEXT)
    for block in backbone.trainable_blocks():
        block.requires_grad_(True)
    return backbone


def stored(folder, backbone, *, kept_patches, kept_text):
    """The batch that a memory of such exemplars gives with fill `drop`."""
    given = []
    for seed in range(BATCH):
        rng = np.random.default_rng(seed)
        image = np.sort(rng.choice(GRID * GRID, kept_patches, replace=False))
        text = np.sort(rng.choice(TEXT, kept_text, replace=False))
        words = rng.integers(1000, 30_000, TEXT).astype(np.int32)
        tokens = {"image": TokenSet(image, patches(seed, grid=GRID, patch=PATCH)[image])}
        given.append(Exemplar(tokens | {"text": TokenSet(text, words[text])}, label=0))
    schema = Schema(backbone.token_specs())
    with ExemplarMemory.create(folder, schema=schema, max_bytes="4MB", durable=False) as memory:
        slots = memory.add(given).slots
        memory.commit()
        return Pipeline(Restorer.of(memory), fill="drop")(TensorBatch.from_numpy(memory.read(slots)))


@pytest.mark.slow
def test_a_step_on_kept_tokens_against_the_dense_step(benchmark, backbone, tmp_path):
    """Forward and backward; reading is not in it."""
    dropped = stored(tmp_path / "kept", backbone, kept_patches=KEPT_PATCHES, kept_text=KEPT_TEXT)
    dense = stored(tmp_path / "all", backbone, kept_patches=GRID * GRID, kept_text=TEXT)
    assert [tokens.valid.sum(1).tolist() for tokens in dropped.tokens.values()] == [[58] * BATCH, [14] * BATCH]
    assert [tokens.valid.sum(1).tolist() for tokens in dense.tokens.values()] == [[144] * BATCH, [40] * BATCH]

    def step(batch):
        backbone.zero_grad()
        features = backbone(batch)
        features.square().mean().backward()
        return features.detach()

    for batch in (dropped, dense):
        found = step(batch)
        assert found.shape == (BATCH, backbone.feature_dim)
        assert torch.isfinite(found).all()
        assert all(weight.grad.any() for weight in backbone.trainable_blocks()[0].parameters() if weight.ndim == 2)
    if not benchmark.disabled:  # many seconds
        kept, whole = interleaved(lambda: step(dropped), lambda: step(dense), rounds=9)
        benchmark.extra_info["of_the_dense_step"] = round(kept / whole, 2)
        benchmark.extra_info["dense_seconds"] = round(whole, 2)
    benchmark.pedantic(step, (dropped,), rounds=1)
