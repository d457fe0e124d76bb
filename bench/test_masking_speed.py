"""What scoring costs over a plain forward pass, at the sizes of real backbones with random weights.

Run `make bench`. A ratio is measured in one process, the two sides in turn, and is reported, never asserted; what is
asserted is that the scores are those of the attention that the pass computes anyway.
"""

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, ViltConfig, ViltModel, ViTConfig, ViTModel

from bench.timing import interleaved
from exmem.backbones import Joint, Vilt
from exmem.masking.scorers import SCORERS
from exmem.tokens.tensors import TensorBatch, TokenTensors
from tests.backbones.models import tokenizer
from tests.exemplars import crop

BATCH = 2


def vilt_b32(words):
    """ViLT-B/32 at 384 px: 144 patches and 40 text tokens through 12 layers."""
    config = ViltConfig(image_size=384, max_position_embeddings=40)
    return Vilt(ViltModel(config, add_pooling_layer=False).eval(), words, max_text=40)


def joint_s14(words):
    """ViT-S/14 at 224 px and a small BERT: 256 patches through 12 layers, 32 text tokens in the last two."""
    sizes = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
    vision = ViTModel(ViTConfig(image_size=224, patch_size=14, **sizes), add_pooling_layer=False).eval()
    text = BertModel(BertConfig(num_hidden_layers=6, **sizes), add_pooling_layer=False).eval()
    return Joint(vision, text, words, image_size=224, max_text=32)


@pytest.fixture(scope="module", params=[vilt_b32, joint_s14], ids=["vilt-b32", "joint-s14"])
def case(request, tmp_path_factory):
    """A backbone and a batch that fills it."""
    torch.manual_seed(0)
    model = request.param(tokenizer(tmp_path_factory.mktemp("words")))
    pictures = np.stack([crop(seed, model.image_sides[0]) for seed in range(BATCH)])
    image = TensorBatch.from_numpy(model.tokens(pictures, ["red"] * BATCH)).tokens["image"]
    text = TokenTensors.dense(torch.randint(5, 9, (BATCH, model.max_text), dtype=torch.int32))
    return model, TensorBatch({"image": image, "text": text}, torch.zeros(BATCH, dtype=torch.int64))


@pytest.mark.one_in(4)
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SCORERS if name not in {"random", "centre"}])
def test_scoring_over_a_forward_pass(benchmark, case, name):
    model, batch = case
    scorer = SCORERS.make(name)

    def forward():
        with torch.inference_mode():
            return model(batch)

    def score():
        return scorer(model, batch)

    maps = score()
    assert all((scores > 0).any(1).all() for scores in maps.scores.values())
    assert maps.text_to_image.sum(2).max() < 1  # what is left goes to the class token and to words
    if benchmark.enabled:
        scoring, plain = interleaved(score, forward, rounds=15)
        benchmark.extra_info["of_a_forward_pass"] = round(scoring / plain, 3)
    benchmark.pedantic(score, rounds=1)
