"""What attention scorers share: one forward pass that is listened to, and score maps made of what was heard."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exmem.backbones.attention import Captured, SequenceLayout, attention, capture
from exmem.backbones.contract import Backbone
from exmem.backbones.hidden import Hidden
from exmem.errors import SchemaError
from exmem.masking.maps import ScoreMaps
from exmem.masking.scorers.dense import dense_lengths, place, place_pairs, valid_tokens
from exmem.tokens.checks import index_of, shown
from exmem.tokens.tensors import TensorBatch

__all__ = ["Observed", "carry_down", "check_layers", "chosen_layers", "observe"]


@dataclasses.dataclass(frozen=True, eq=False)
class Observed:
    """A forward pass of a batch and what was captured of its attention, in the chosen layers and in the last one."""

    model: Backbone
    batch: TensorBatch
    trunk: Hidden
    features: Tensor
    layers: Sequence[int]
    captured: Mapping[int, Captured]

    @property
    def last(self) -> int:
        """The last layer of the model."""
        return max(self.captured)

    def layout(self, layer: int) -> SequenceLayout:
        """Say where tokens stand in a layer."""
        return self.model.layout(self.trunk, layer)

    def attention(self, layer: int, rows: slice = slice(None)) -> Tensor:
        """Return the attention of R queries of a layer, all when left out, (B, H, R, T); 0 for padding."""
        return attention(self.captured[layer], self.layout(layer).valid, rows)

    def query_attention(self, layer: int) -> Tensor:
        """Return the attention (B, H, T) of the query that scores: class token, probe, or the mean of all queries."""
        query = self.layout(layer).query
        if query is not None:
            return self.attention(layer, query).mean(2)
        return torch.einsum("br,bhrt->bht", self.query_weights(layer), self.attention(layer))

    def query_weights(self, layer: int) -> Tensor:
        """Return the share of each query of a layer in the query that scores, (B, R); rows sum to 1.

        It is 1 at the class token or probe; where there is neither, the same for every token.
        """
        layout, queries = self.layout(layer), self.captured[layer].state("query")
        if layout.query is None:
            weights = layout.valid.to(queries.dtype)
        else:
            weights = queries.new_zeros(queries.shape[:2])
            weights[:, layout.query] = 1
        return weights / weights.sum(1, keepdim=True).clamp(min=1)

    def by_modality(self, rows: Mapping[int, Tensor]) -> dict[str, Tensor]:
        """Cut rows (B, T) over whole sequences into modalities, (B, K), mean over the layers that hold the modality.

        A modality that no layer holds is left out.
        """
        means = {}
        for name in ("image", "text"):
            places = {layer: getattr(self.layout(layer), name) for layer in rows}
            per_layer = [rows[layer][:, where] for layer, where in places.items() if where is not None]
            if per_layer:
                means[name] = torch.stack(per_layer).mean(0)
        return means

    def class_scores(self) -> dict[str, Tensor]:
        """Return the attention of the query by modality, mean over heads and the chosen layers that hold it."""
        return self.by_modality({layer: self.query_attention(layer).mean(1) for layer in self.layers})

    def maps(self, scores: Mapping[str, Tensor]) -> ScoreMaps:
        """Put scores (B, K) at their dense positions and add what the text rule needs.

        The attention between texts and images is that of the last layer, mean over the heads, where both share it; else
        the model's own similarity, which then also scores the text (SchemaError if it has none). A modality without
        scores (text, where it enters above the chosen layers) takes the attention of the query in the last layer.
        """
        lengths, layout = dense_lengths(self.model), self.layout(self.last)
        if lengths.keys() - scores.keys():
            scores = {**self.by_modality({self.last: self.query_attention(self.last).mean(1)}), **scores}
        crosses: list[Tensor] = []
        if {"image", "text"} <= lengths.keys():
            if layout.image is not None and layout.text is not None:
                heads_mean = self.attention(self.last).mean(1)
                crosses = [heads_mean[:, layout.text, layout.image], heads_mean[:, layout.image, layout.text]]
            else:
                similarity = self.model.similarity(self.batch, self.trunk)
                if similarity is None:
                    raise SchemaError(
                        "the model takes texts, but its last layer holds none and it has no similarity to score them "
                        "by; let its `similarity` return one"
                    )
                scores, crosses = {**scores, "text": similarity.text}, [*similarity[1:]]
        tokens = {name: self.batch.tokens.get(name) for name in lengths}
        dense = {name: place(_numpy(scores[name]), tokens[name], length) for name, length in lengths.items()}
        valid = valid_tokens(self.model, self.batch)
        if not crosses:
            return ScoreMaps(dense, valid, hidden=self.trunk)
        pair, shape = (tokens["text"], tokens["image"]), (lengths["text"], lengths["image"])
        return ScoreMaps(
            dense,
            valid,
            place_pairs(_numpy(crosses[0]), pair, shape),
            place_pairs(_numpy(crosses[1]), pair[::-1], shape[::-1]),
            self.trunk,
        )


def observe(
    model: Backbone,
    batch: TensorBatch,
    layers: Sequence[int] | None,
    parts: Sequence[str] = ("query", "key"),
    *,
    hidden: Hidden | None = None,
    gradient: bool = False,
) -> Observed:
    """Run a batch through a model and capture the attention of chosen layers (None: all) and of the last one.

    The trunk is left out where its result is known and no chosen layer lies in it. SchemaError if the model lacks a
    layer.
    """
    taps = model.attention_taps()
    chosen = chosen_layers(layers, len(taps))
    listened = {layer: taps[layer] for layer in sorted({*chosen, len(taps) - 1})}
    with capture(listened, parts, gradient=gradient) as captured:
        known = hidden is not None and not gradient and min(listened) >= model.first_tuned_layer
        trunk = hidden if hidden is not None and known else model.embed(batch, gradient=gradient)
        features = model.encode(trunk)
    return Observed(model, batch, trunk, features, chosen, captured)


def chosen_layers(layers: Sequence[int] | None, number: int) -> list[int]:
    """Return chosen layers of a model from 0, first to last, none twice; negative ones count back, None is all.

    SchemaError if the model lacks a layer.
    """
    wrong = [layer for layer in layers or () if not -number <= layer < number]
    if wrong:
        raise SchemaError(f"layers {wrong} do not exist: the model has {number}; choose from {-number}..{number - 1}")
    return sorted({layer % number for layer in (range(number) if layers is None else layers)})


def check_layers(layers: Sequence[int] | None) -> tuple[int, ...] | None:
    """Return layers as a tuple, None as it is; SchemaError if no layer is given."""
    if layers is None:
        return None
    if isinstance(layers, str) or not isinstance(layers, Sequence) or None in map(index_of, layers):
        raise SchemaError(f"layers: expected a list of whole numbers, got {shown(layers)}")
    if not layers:
        raise SchemaError("layers: expected at least one layer, got none")
    return tuple(layers)


def carry_down(
    seen: Observed, attended: Callable[[int], Tensor], mix: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, Tensor]:
    """Follow what the query reads from the top of the chosen layers down to the tokens; the vector (B, K) by modality.

    `attended` gives a layer's map A, (B, R, T); `mix` takes v and v A and gives v M, and is not asked where queries are
    no tokens: there v M is v A. Text that enters in the middle stands in no layer below: its part is final there.
    """
    # The row of the class token in a product of maps M_top ... M_1 is the vector e M_top ... M_1, where e is 1 at the
    # class token and 0 elsewhere. Matrix products are associative, so the vector may be carried through one map at a
    # time, from the top, and the product of the matrices is never formed. Each M is a mix of the identity (the residual
    # connection) and of the layer's attention A, so v M needs v and v A alone: O(T^2) memory, one map at a time.
    final: dict[str, Tensor] = {}
    above, vector = seen.layout(seen.layers[-1]), seen.query_weights(seen.layers[-1])
    for layer in reversed(seen.layers):
        layout = seen.layout(layer)
        if above.text is not None and layout.text is None:
            final["text"] = vector[:, above.text]
            below = torch.ones(vector.shape[1], dtype=torch.bool, device=vector.device)
            below[above.text] = False
            vector = vector[:, below]
        read = (vector.unsqueeze(1) @ attended(layer)).squeeze(1)
        vector, above = mix(vector, read) if layout.residual else read, layout
    return {**seen.by_modality({seen.layers[0]: vector}), **final}


def _numpy(values: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = values.detach().float().cpu().numpy()
    return array
