"""Where the bits of a feature or of a hidden token go: quantisers, bases and entropy, by accuracy.

    python -m bench.bits

Image only, the demo data, three seeds; all training images that a seed may choose from are held, so that nothing but
the quantiser differs. A table of bytes a token, of bytes of tables beside them, of the share of the bytes that zstd and
an ideal coder of single codes (order 0, no tables) would leave, and of the accuracy of a logistic regression.
Bases: of the principal components of what is stored (a table), or of the weights that look at a hidden token next (the
right singular vectors of the next block's query, key and value, which cost nothing), with bits by variance and gain.
"""

import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numcodecs.zstd import Zstd

from exmem.backbones import Backbone, Hidden, load_backbone
from exmem.cli.demo.stickers import StickersConfig, build_stickers
from exmem.codecs.k_means import k_means, nearest
from exmem.recipes import BoundRecipe, Recipe
from exmem.train.data import load_data
from exmem.train.hidden import KeptHidden, features_of, scored_and_embedded, tokens_of
from exmem.train.learner import Learner
from exmem.train.methods import HEADS, Labelled
from exmem.train.samples import chosen_rows
from exmem.train.tuners.lora import Lora

_SEEDS, _DRAW = (0, 1, 2), 0.75  # share of each class that a seed may choose from

Rows = np.ndarray  # (N, D) float32
_LEVELS = {  # upper halves, in deviations (Max 1960, table 1)
    1: [0.7978846],
    2: [0.4527800, 1.5104176],
    4: [0.1283950, 0.3880483, 0.6567591, 0.9423405, 1.2562310, 1.6180460, 2.0690170, 2.7325900],
}


class Coded(NamedTuple):
    """What a quantiser made of rows: the values that come back, codes (N, C) and their bits (C,), bytes of tables."""

    values: Rows
    codes: np.ndarray
    bits: np.ndarray
    table_bytes: int


def levels_of(bits: int) -> np.ndarray:
    upper = np.array(_LEVELS[bits], np.float32)
    return np.concatenate([-upper[::-1], upper])


def scalar(bits: int) -> Callable[[Rows], Coded]:
    """Each channel by its mean and deviation, as the codec `scalar`."""
    return lambda rows: in_basis(rows, np.eye(rows.shape[1], dtype=np.float32), np.full(rows.shape[1], bits), 3)


def in_basis(rows: Rows, basis: Rows, bits: np.ndarray, bytes_a_channel: int) -> Coded:
    """Rotate by orthonormal columns, and give each coordinate so many bits; 0 leaves its mean."""
    mean = rows.mean(0)
    turned = (rows - mean) @ basis
    deviation = turned.std(0) + 1e-12
    codes, back = np.zeros(turned.shape, np.uint8), np.zeros_like(turned)
    for number in np.unique(bits[bits > 0]):
        chosen, levels = bits == number, levels_of(int(number))
        codes[:, chosen] = np.searchsorted((levels[1:] + levels[:-1]) / 2, turned[:, chosen] / deviation[chosen])
        back[:, chosen] = levels[codes[:, chosen]] * deviation[chosen]
    used = bits > 0
    return Coded(back @ basis.T + mean, codes[:, used], bits[used], bytes_a_channel * rows.shape[1])


def by_variance(variances: np.ndarray, average: float) -> np.ndarray:
    """Give bits of 0, 1, 2 or 4 to coordinates where they take most off the error, so many on average."""
    error = {0: 1.0, 1: 0.3634, 2: 0.1175, 4: 0.00954}  # of the variance
    bits, left = np.zeros(len(variances), np.int64), round(average * len(variances))
    following = {0: 1, 1: 2, 2: 4}
    while True:
        gains = np.array(
            [
                (error[b] - error[following[b]]) * v / (following[b] - b) if b in following else 0.0
                for b, v in zip(bits.tolist(), variances, strict=True)
            ]
        )
        best = int(gains.argmax())
        if gains[best] <= 0 or following[int(bits[best])] - bits[best] > left:
            return bits
        left -= following[int(bits[best])] - bits[best]
        bits[best] = following[int(bits[best])]


def principal(average: float) -> Callable[[Rows], Coded]:
    def code(rows: Rows) -> Coded:
        variances, basis = np.linalg.eigh(np.cov(rows.T))
        bits = by_variance(variances.clip(0), average)
        coded = in_basis(rows, basis.astype(np.float32), bits, 3)
        return coded._replace(table_bytes=coded.table_bytes + int((bits > 0).sum()) * rows.shape[1])  # int8

    return code


def of_weights(weights: Rows, average: float) -> Callable[[Rows], Coded]:
    def code(rows: Rows) -> Coded:
        _, gains, basis = np.linalg.svd(weights, full_matrices=True)
        turned = (rows - rows.mean(0)) @ basis.T
        return in_basis(rows, basis.T.astype(np.float32), by_variance(turned.var(0) * gains**2, average), 3)

    return code


def product(parts: int, centres: int, stages: int = 1) -> Callable[[Rows], Coded]:
    """Product quantisation of whitened values; a later stage codes what the one before left (residual)."""

    def code(rows: Rows) -> Coded:
        mean, deviation = rows.mean(0), rows.std(0) + 1e-12
        left, rng = ((rows - mean) / deviation).astype(np.float32), np.random.default_rng(0)
        total, codes = np.zeros_like(left), []
        for _ in range(stages):
            cut = left.reshape(len(rows), parts, -1)
            for part in range(parts):
                some = np.ascontiguousarray(cut[rng.permutation(len(cut))[:16_384], part])
                books = k_means(some, centres, rng)
                found = nearest(np.ascontiguousarray(cut[:, part]), books)
                codes.append(found.astype(np.uint8))
                width = cut.shape[2]
                total[:, part * width : (part + 1) * width] += books[found]
            left = ((rows - mean) / deviation - total).astype(np.float32)
        bits = np.full(parts * stages, {16: 4, 256: 8}[centres])
        tables = stages * centres * rows.shape[1] + 3 * rows.shape[1]
        return Coded(total * deviation + mean, np.stack(codes, 1), bits, tables)

    return code


def entropy_share(coded: Coded) -> float:
    """The bytes that an ideal coder of single codes would leave, of those that the codes take."""
    total = 0.0
    for column in coded.codes.T:
        shares = np.bincount(column) / len(column)
        total -= (shares[shares > 0] * np.log2(shares[shares > 0])).sum()
    return total / coded.bits.sum()


def zstd_share(coded: Coded) -> float:
    """The bytes that zstd leaves of the codes as they lie in a memory, row by row."""
    bits = np.concatenate(
        [(column[:, None] >> np.arange(width)) & 1 for column, width in zip(coded.codes.T, coded.bits, strict=True)],
        axis=1,
    )
    packed = np.packbits(bits.astype(np.uint8), axis=1).tobytes()
    return len(Zstd(level=19).encode(packed)) / len(packed)


def accuracy(features: Rows, labels: np.ndarray, tested: Rows, expected: np.ndarray) -> float:
    head = HEADS.make("logistic")
    head.fit(Labelled(features.astype(np.float32), labels))
    return float((head.predict(tested) == expected).mean())


def next_weights(backbone: Backbone) -> Rows:
    """What the next block makes of a hidden token: query, key and value, behind the scales of its norm."""
    state, place = backbone.state_dict(), f"vision.model.encoder.layer.{backbone.first_tuned_layer}."
    parts = [state[f"{place}attention.{name}_proj.weight"] for name in "qkv"]
    return (torch.cat(parts) * state[f"{place}norm1.weight"]).numpy()


def main() -> None:
    backbone = load_backbone("joint", image_size=112, trainable_blocks=1, modalities=("image",))
    weights = next_weights(backbone)
    train, test = load_data(build_stickers(StickersConfig(num_classes=22, max_train=70, max_test=25)))
    learner, bound = (
        Learner(backbone, Lora(rank=1, alpha=1)),
        BoundRecipe(Recipe.of("hidden").refined(codec="lossless"), backbone),
    )
    hidden, features = [], []
    for data in (train, test):
        rows = np.arange(len(data))
        states, scores = scored_and_embedded(bound.masking, tokens_of(backbone, data), rows, lambda _: None)
        hidden.append(bound.pruned(states, scores).to(torch.float32))
        features.append([of(learner, states), of(learner, hidden[-1])])
    columns = ("quantiser", "bytes a token", "tables", "zstd", "order 0", "accuracy, %")
    print("| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns))
    for what, quantisers in (("features", of_features()), ("hidden", of_hidden(weights))):
        for name, code in quantisers.items():
            found, told = [], None
            for seed in _SEEDS:
                rows = chosen_rows(train.labels, share=_DRAW, seed=seed)
                if what == "features":
                    told = code(features[0][0][rows])
                    seen, tested = told.values, features[1][0]
                else:
                    told, seen = coded_hidden(code, hidden[0], rows, learner)
                    tested = features[1][1]
                found.append(100 * accuracy(seen, train.labels[rows], tested, test.labels))
            each = told.bits.sum() / 8
            cells = [f"{what}, {name}", f"{each:.0f}", f"{told.table_bytes:,}", f"{zstd_share(told):.2f}"]
            cells += [f"{entropy_share(told):.2f}", f"{np.mean(found):.1f} ± {np.std(found, ddof=1):.1f}"]
            print("| " + " | ".join(cells) + " |", flush=True)
            print(name, found, file=sys.stderr)


def of_features() -> dict[str, Callable[[Rows], Coded]]:
    table = {f"{bits} bits a channel": scalar(bits) for bits in (1, 2, 4)}
    table |= {f"principal components, {bits} bits on average": principal(bits) for bits in (0.25, 0.5, 1, 2)}
    return table | {
        "product, 96 x 256": product(96, 256),
        "product, 192 x 16": product(192, 16),
        "residual, 2 stages of 96 x 16": product(96, 16, stages=2),
    }


def of_hidden(weights: Rows) -> dict[str, Callable[[Rows], Coded]]:
    table = {f"{bits} bits a channel": scalar(bits) for bits in (1, 2)}
    table |= {f"principal components, {bits} bits on average": principal(bits) for bits in (0.5, 1, 1.33)}
    table |= {f"basis of the next weights, {bits} bits on average": of_weights(weights, bits) for bits in (1, 1.33, 2)}
    return table | {
        "product, 64 x 256": product(64, 256),
        "product, 128 x 16": product(128, 16),
        "residual, 2 stages of 64 x 16": product(64, 16, stages=2),
    }


def of(learner: Learner, states: Hidden) -> Rows:
    return features_of(learner, KeptHidden(states, torch.device("cpu")), np.arange(len(states))).numpy()


def coded_hidden(
    code: Callable[[Rows], Coded], hidden: Hidden, rows: np.ndarray, learner: Learner
) -> tuple[Coded, Rows]:
    chosen = hidden.select(torch.from_numpy(rows))
    prefix, image = chosen.prefix, chosen.image
    assert bool(image.valid.all())
    tokens = torch.cat([prefix, image.values], 1)
    coded = code(tokens.reshape(-1, tokens.shape[2]).numpy())
    values = torch.from_numpy(coded.values.astype(np.float32)).reshape(tokens.shape)
    first = prefix.shape[1]
    image = type(image)(values[:, first:], image.positions, image.valid)
    return coded, of(learner, Hidden(values[:, :first], image, chosen.text))


if __name__ == "__main__":
    main()
