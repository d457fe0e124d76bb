"""What scorers are tried on: every family of backbones, and toys of the forms that a backbone may have."""

import torch
from torch import nn

from exmem.backbones import BACKBONES
from exmem.backbones.attention import AttentionTap, SequenceLayout, Similarity
from exmem.tokens import TokenSpec
from exmem.tokens.tensors import TensorBatch, TokenTensors
from tests.backbones.models import load, whole

FORMS = {
    **{kind: lambda written, kind=kind: load(kind, written[kind]) for kind in sorted(BACKBONES)},
    "joint of dinov2": lambda written: load("joint", (*written["dinov2"], *written["bert"]), blocks=1),
    "vilt without frozen blocks": lambda written: load("vilt", written["vilt"], blocks=3),
    "toy of images": lambda written: Toy(("image",)),
    "toy of texts": lambda written: Toy(("text",)),
    "toy without class token": lambda written: Toy(("image", "text"), class_token=False),
    "toy of two towers": lambda written: Toy(("image", "text"), class_token=False, pooling=True, similar=True),
}


def whole_batch(model):
    """Two rows with texts of five and three tokens, nothing dropped."""
    if isinstance(model, Toy):
        return model.batch()
    batch = whole(model)
    return TensorBatch({name: batch.tokens[name] for name in model.token_specs()}, batch.labels)


def sparse_batch(model):
    """The same with 11 and 7 of the patches, so that the second row is padded in both modalities."""
    batch = whole_batch(model)
    if "image" not in batch.tokens:
        return batch
    image = batch.tokens["image"]
    rows = [[0, 1, 2, 4, 5, 7, 8, 10, 11, 13, 15], [3, 4, 6, 9, 10, 12, 15]]
    keep = torch.tensor([[place < len(row) for place in range(11)] for row in rows])
    picked = torch.tensor([row + [0] * (11 - len(row)) for row in rows])
    values = torch.stack([image.values[row, places] for row, places in enumerate(picked)])
    return TensorBatch({**batch.tokens, "image": TokenTensors(values, picked, keep)}, batch.labels)


def alone(batch, row):
    """One row of a batch without its padding."""
    tokens = {}
    for name, found in batch.tokens.items():
        keep = found.valid[row]
        parts = (part[row : row + 1, keep] for part in (found.values, found.positions, found.valid))
        tokens[name] = TokenTensors(*parts)
    return TensorBatch(tokens, batch.labels[row : row + 1])


def shuffled(batch):
    """The same tokens in another order, padding in between."""

    def mixed(tokens):
        order = torch.randperm(tokens.valid.shape[1], generator=torch.Generator().manual_seed(1))
        return TokenTensors(tokens.values[:, order], tokens.positions[:, order], tokens.valid[:, order])

    return TensorBatch({name: mixed(tokens) for name, tokens in batch.tokens.items()}, batch.labels)


class Toy(nn.Module):
    """Attention blocks in plain torch: each keeps its maps, and the last one may be an attention pooling."""

    grid = (2, 8)
    first_tuned_layer = 0  # `embed` runs no block

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
        every = {"image": (image, [16, 16]), "text": (text, [5, 3])}
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
            keeps.append(tokens.valid)
            places[name] = slice(start, start + tokens.valid.shape[1])
            start = places[name].stop
        return torch.cat(parts, 1), torch.cat(keeps, 1), places

    def encode(self, trunk):
        hidden, keep, _ = trunk
        for block in self.blocks[: len(self.blocks) - self.pooling]:
            hidden = hidden + block(hidden, hidden, keep)
        if self.pooling and not hidden.shape[1]:
            return torch.zeros(len(hidden), 8)
        if self.pooling:
            return self.blocks[-1](self.first.expand(len(hidden), 1, -1), hidden, keep)[:, 0]
        weights = keep.unsqueeze(-1).float()
        return (hidden * weights).sum(1) / weights.sum(1)

    def forward(self, batch):
        return self.encode(self.embed(batch))

    def attention_taps(self):
        return [AttentionTap(block.query, block.key, block.value, block.output, 2) for block in self.blocks]

    def layout(self, trunk, layer):
        pooled = self.pooling and layer == len(self.blocks) - 1
        query = slice(0, 1) if self.class_token or pooled else None
        _, keep, places = trunk
        return SequenceLayout(places.get("image"), places.get("text"), keep, query, residual=not pooled)

    def similarity(self, batch, trunk):
        if not self.similar:
            return None
        image, text = (tokens_of(batch, name) for name in ("image", "text"))
        pairs = text.values @ image.values.transpose(1, 2)
        weights = image.valid[:, None].float()
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
            part(states).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part, states in ((self.query, asking), (self.key, asked), (self.value, asked))
        )
        logits = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        self.map = torch.softmax(logits.masked_fill(~keep[:, None, None], -1e30), -1)
        return self.output((self.map @ value).transpose(1, 2).flatten(2))
