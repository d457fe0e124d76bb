"""Tiny models that scorers are tried on: every backbone there is, and toys of the forms that a backbone may have."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    ViltConfig,
    ViltModel,
    ViTConfig,
    ViTModel,
)

from exmem.backbones import Joint, Vilt
from exmem.masking.attention import AttentionTap, SequenceLayout
from exmem.masking.base import Similarity
from exmem.tensors import TensorBatch, TokenTensors
from exmem.tokens import TokenSpec
from tests.exemplars import crop

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "temple", "flower", "red", "roof"]
TEXTS = ["temple roof red flower", "red"]
# Weights that are large for their width: attention is far from uniform, so that an error shows.
SIZES = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3, "initializer_range": 0.2}
VIT = SIZES | {"intermediate_size": 64, "image_size": 32, "patch_size": 8}
VISION = {
    "vit": lambda: ViTModel(ViTConfig(**VIT), add_pooling_layer=False),
    "dinov2": lambda: Dinov2Model(Dinov2Config(**SIZES, image_size=40, patch_size=8)),
    "clip": lambda: CLIPVisionModel(CLIPVisionConfig(**VIT)),
}


@functools.cache
def tokenizer():
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.txt").write_text("\n".join(WORDS))
        return BertTokenizer(str(Path(folder) / "vocab.txt"))


def joint(kind, blocks=2):
    torch.manual_seed(0)
    vision = VISION[kind]().eval()
    text = BertModel(BertConfig(vocab_size=len(WORDS), intermediate_size=64, **SIZES), add_pooling_layer=False)
    vision = getattr(vision, "vision_model", vision)
    return Joint(vision, text, tokenizer(), image_size=32, trainable_blocks=blocks, max_text=8)


def vilt(blocks=None):
    torch.manual_seed(0)
    config = ViltConfig(max_position_embeddings=8, vocab_size=len(WORDS), **VIT)
    return Vilt(
        ViltModel(config, add_pooling_layer=False).eval(),
        tokenizer(),
        image_size=32,
        trainable_blocks=blocks,
        max_text=8,
    )


BACKBONES = {
    "joint-vit": lambda: joint("vit"),
    "joint-dinov2": lambda: joint("dinov2", blocks=1),
    "joint-clip": lambda: joint("clip"),
    "vilt": vilt,
    "vilt-2": lambda: vilt(blocks=2),
    "toy-image": lambda: Toy(("image",)),
    "toy-text": lambda: Toy(("text",)),
    "toy-no-class": lambda: Toy(("image", "text"), class_token=False),
    "toy-two-towers": lambda: Toy(("image", "text"), class_token=False, pooling=True, similar=True),
}


@functools.cache
def backbone(name):
    """A model for questions only; a test that changes one makes its own."""
    return BACKBONES[name]()


def whole_batch(model):
    """Two pictures with texts of different length, every token kept."""
    if isinstance(model, Toy):
        return model.batch()
    pictures = np.stack([crop(seed, 32) for seed in range(2)])
    return TensorBatch.from_numpy(model.tokens(pictures, TEXTS))


def sparse_batch(model):
    """The same with 11 and 7 of the 16 patches, so that the second row is padded in both modalities."""
    whole = whole_batch(model)
    if "image" not in whole.tokens:
        return whole
    image = whole.tokens["image"]
    rows = [[0, 1, 2, 4, 5, 7, 8, 10, 11, 13, 15], [3, 4, 6, 9, 10, 12, 15]]
    keep = torch.tensor([[place < len(row) for place in range(11)] for row in rows])
    picked = torch.tensor([row + [0] * (11 - len(row)) for row in rows])
    values = torch.stack([image.values[row, places] for row, places in enumerate(picked)])
    return TensorBatch({**whole.tokens, "image": TokenTensors(values, picked, keep)}, whole.labels)


def alone(batch, row):
    """One row of a batch without its padding."""
    tokens = {
        name: TokenTensors(*(part[row : row + 1, found.keep[row]] for part in (found.values, found.positions)), keep)
        for name, found in batch.tokens.items()
        for keep in [found.keep[row : row + 1, found.keep[row]]]
    }
    return TensorBatch(tokens, batch.labels[row : row + 1])


def shuffled(batch):
    """The same tokens in another order, padding in between."""

    def mixed(tokens):
        order = torch.randperm(tokens.keep.shape[1], generator=torch.Generator().manual_seed(1))
        return TokenTensors(tokens.values[:, order], tokens.positions[:, order], tokens.keep[:, order])

    return TensorBatch({name: mixed(tokens) for name, tokens in batch.tokens.items()}, batch.labels)


class Toy(nn.Module):
    """Attention blocks in plain torch: each keeps its maps, and the last one may be an attention pooling."""

    grid = (2, 8)

    def __init__(self, modalities, *, class_token=True, pooling=False, similar=False):
        super().__init__()
        torch.manual_seed(0)
        self.modalities, self.class_token, self.pooling, self.similar = modalities, class_token, pooling, similar
        self.seen = ("image",) if similar else modalities
        self.blocks = nn.ModuleList(ToyBlock(8, 2) for _ in range(3))
        self.table = nn.ParameterDict({"image": torch.randn(16, 8), "text": torch.randn(6, 8)})
        self.first = nn.Parameter(torch.randn(8))
        self.requires_grad_(False)

    def token_specs(self):
        every = {"image": TokenSpec(positions=16, shape=(8,)), "text": TokenSpec(positions=6, shape=(8,))}
        return {name: every[name] for name in self.modalities}

    def batch(self):
        image, text = torch.randn(2, 21, 8, generator=torch.Generator().manual_seed(3)).split([16, 5], 1)
        every = {"image": (image, [16, 16]), "text": (text, [5, 2])}
        tokens = {}
        for name in self.modalities:
            values, counts = every[name]
            keep = torch.arange(values.shape[1]) < torch.tensor(counts)[:, None]
            tokens[name] = TokenTensors(values, torch.arange(values.shape[1]) * keep, keep)
        return TensorBatch(tokens, torch.arange(2))

    def embed(self, batch, *, gradient=False):
        parts, keeps, places, start = [], [], {}, 0
        if self.class_token:
            parts, keeps, start = [self.first.expand(len(batch), 1, -1)], [torch.ones(len(batch), 1) > 0], 1
        for name in self.seen:
            tokens = tokens_of(batch, name)
            parts.append(tokens.values + self.table[name][tokens.positions])
            keeps.append(tokens.keep)
            places[name] = slice(start, start + tokens.keep.shape[1])
            start = places[name].stop
        return torch.cat(parts, 1), torch.cat(keeps, 1), places

    def encode(self, stream):
        hidden, keep, _ = stream
        for block in self.blocks[: len(self.blocks) - self.pooling]:
            hidden = hidden + block(hidden, hidden, keep)
        if self.pooling:
            return self.blocks[-1](self.first.expand(len(hidden), 1, -1), hidden, keep)[:, 0]
        weights = keep.unsqueeze(-1).float()
        return (hidden * weights).sum(1) / weights.sum(1)

    def forward(self, batch):
        return self.encode(self.embed(batch))

    def attention_taps(self):
        return [AttentionTap(block.query, block.key, block.value, block.output, 2) for block in self.blocks]

    def layout(self, stream, layer):
        pooled = self.pooling and layer == len(self.blocks) - 1
        query = slice(0, 1) if self.class_token or pooled else None
        _, keep, places = stream
        return SequenceLayout(places.get("image"), places.get("text"), keep, query, residual=not pooled)

    def similarity(self, batch, stream):
        if not self.similar:
            return None
        image, text = (tokens_of(batch, name) for name in ("image", "text"))
        pairs = text.values @ image.values.transpose(1, 2)
        weights = image.keep[:, None].float()
        return Similarity((pairs * weights).sum(2) / weights.sum(2), pairs, pairs.transpose(1, 2))


def tokens_of(batch, name):
    return batch.tokens.get(name) or TokenTensors.dense(torch.zeros(len(batch), 0, 8))


class ToyBlock(nn.Module):
    """Multi-head attention with an explicit softmax."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.map = None

    def forward(self, asking, asked, keep):
        query, key, value = (
            part(states).reshape(*states.shape[:2], self.heads, -1).transpose(1, 2)
            for part, states in ((self.query, asking), (self.key, asked), (self.value, asked))
        )
        logits = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        self.map = torch.softmax(logits.masked_fill(~keep[:, None, None], -1e30), -1)
        return self.output((self.map @ value).transpose(1, 2).flatten(2))
