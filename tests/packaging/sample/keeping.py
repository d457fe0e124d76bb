"""A memory of one's own: made, filled, selected for, read and looked after."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exmem import (
    AddReport,
    Exemplar,
    ExemplarMemory,
    ExtraSpec,
    Schema,
    TokenBatch,
    TokenSet,
    TokenSpec,
    format_bytes,
    parse_bytes,
)
from exmem.errors import BudgetError, ExmemError
from exmem.masking import top_k
from exmem.memory.reservoir import StreamReservoir
from exmem.selection import SELECTIONS, herding

SCHEMA = Schema(
    {
        "image": TokenSpec(positions=16, shape=(8, 8, 3), dtype="uint8", codec="patch_jpeg", grid=(4, 4)),
        "text": TokenSpec(positions=8, dtype="int32"),
    },
    extras={"logits": ExtraSpec(shape=(10,), dtype="float16")},
)


def exemplar(patches: NDArray[np.uint8], scores: NDArray[np.float32], label: int) -> Exemplar:
    keep = top_k(scores[None], k=4)[0]
    tokens = {"image": TokenSet.kept(patches, keep), "text": TokenSet([0], np.array([101], np.int32))}
    return Exemplar(tokens, label=label, priority=0.5, extras={"logits": np.zeros(10, np.float16)})


def best(features: NDArray[np.float32], count: int) -> list[int]:
    order: NDArray[np.int64] = herding(features, count=count)
    assert "herding" in SELECTIONS
    return [int(row) for row in order]


def keep_phase(place: Path, exemplars: Sequence[Exemplar]) -> AddReport | None:
    with ExemplarMemory.create(place, schema=SCHEMA, max_bytes="1MB", quota="counts", max_exemplars=100) as memory:
        plan = memory.plan_add(exemplars)
        if len(plan.victims) > 10:
            return None
        try:
            report = memory.add(exemplars)
        except BudgetError as error:
            raise ExmemError(f"{format_bytes(memory.free_bytes)} of {parse_bytes('1MB')} are free") from error
        memory.update(report.slots, priority=np.ones(len(report.slots)))
        memory.annotate(class_names={0: "cat"}, attrs={"made": "by hand"})
        memory.evict(report.evicted)
        memory.commit()
        return report


def keep_stream(memory: ExemplarMemory, arrivals: Iterator[Exemplar]) -> int:
    reservoir = StreamReservoir(memory, seed=0)
    for arrival in arrivals:
        reservoir.add([arrival])
    memory.commit()
    return reservoir.seen


def read_all(place: Path) -> tuple[NDArray[np.int64], int]:
    memory = ExemplarMemory.open(place)
    batch: TokenBatch = memory.read(memory.slots)
    drawn = memory.sample(4, sampler="balanced", seed=1)
    image = drawn.tokens["image"]
    bytes_of_class = {label: summary.payload_bytes for label, summary in memory.summary().items()}
    return batch.labels, int(image.valid.sum()) + sum(bytes_of_class.values())
