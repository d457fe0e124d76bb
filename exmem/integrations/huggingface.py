"""Hugging Face: a memory as a `datasets.IterableDataset`, and a callback of `transformers.Trainer` that replays."""

from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import numpy as np
from datasets.iterable_dataset import ExamplesIterable
from numpy.typing import DTypeLike
from PIL import Image
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from exmem.errors import SchemaError, StaleSnapshotError
from exmem.integrations.memory_rows import MemoryRows
from exmem.integrations.phases import PhaseReplay
from exmem.memory import ExemplarMemory
from exmem.replay import SAMPLERS
from exmem.store import Place
from exmem.tokens.checks import flag, whole_number

__all__ = ["ReplayCallback", "iterable_dataset"]


def iterable_dataset(
    source: "ExemplarMemory | Place",
    *,
    fields: Sequence[str] = ("image", "label"),
    sampler: str = "uniform",
    seed: int = 0,
    batch: int = 64,
    num_shards: int = 16,
    endless: bool = False,
    fill: str = "mean",
) -> "datasets.IterableDataset":
    """Show a memory as a data set of `datasets`, which draws passes from what is committed now.

    Parameters
    ----------
    source : ExemplarMemory or place
        The memory, a folder, or a Zarr store. Processes open it for themselves, by its place.
    fields : sequence of str
        Columns, as of `ReplayDataset`: `image` (`datasets.Image`: of PIL, or uint8 in the formats of torch and NumPy),
        `label`, `slot`, extra fields, `text` (ids at their positions, zeros elsewhere) and `text_valid` (where there
        are any), or `hidden`, `features`.
    sampler : str
        A key of `SAMPLERS`: uniform (each exemplar once in a pass), or balanced over the classes.
    seed : int
        Seed of the draws. Which pass is drawn follows from `set_epoch`.
    batch : int
        Rows that are read at once.
    num_shards : int
        Equal parts of a pass, which DataLoader workers and ranks (`datasets.distributed.split_dataset_by_node`) share
        among them. More workers than that get nothing to do.
    endless : bool
        Whether one pass follows the other in one iteration.
    fill : str
        What stands where patches were dropped; see `ReplayBatch.images`.

    Returns
    -------
    datasets.IterableDataset
        With `features`, so that `with_format("torch")` and the like work, and with the state of what was taken.

    Raises
    ------
    SchemaError
        If the memory has no such field, holds nothing to draw, or an option is out of range.
    StaleSnapshotError
        Raised by the iteration, if exemplars of it were evicted since; make the data set anew.
    """
    SAMPLERS[sampler]  # an unknown one is told now, not in a worker
    rows = MemoryRows(source, fields=fields, fill=fill)
    if not len(rows):
        raise SchemaError(f"{rows.location}: the memory holds no exemplar to draw; add and commit some first")
    draws = {
        "sampler": sampler,
        "seed": whole_number(seed, "seed"),
        "batch": whole_number(batch, "batch", least=1),
        "endless": flag(endless, "endless"),
        "shards": whole_number(num_shards, "num_shards", least=1),
    }
    features = datasets.Features({name: _feature(name, rows) for name in rows.fields})
    passes = _Passes(rows, draws, features, [*range(num_shards)])
    return datasets.IterableDataset(passes, info=datasets.DatasetInfo(features=features))


class _Passes(ExamplesIterable):  # type: ignore[misc] # datasets has no types
    """Passes over the rows of a memory, in parts; `datasets` chooses the parts and the pass."""

    def __init__(
        self, rows: MemoryRows, draws: dict[str, Any], features: "datasets.Features", shards: list[int], number: int = 0
    ) -> None:
        super().__init__(rows.read, {"shards": shards})
        self._rows, self._draws, self._features, self._shards, self._number = rows, draws, features, shards, number

    is_typed = True  # rows are of the features as they come: an image is not encoded and decoded again

    @property
    def features(self) -> "datasets.Features":
        return self._features

    @override
    def _init_state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"pass": 0, "shard_idx": 0, "shard_example_idx": 0, "generation": self._rows.generation}
        self._state_dict = {**state, "type": type(self).__name__}
        return self._state_dict

    @override
    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        state: dict[str, Any] = self._state_dict or self._init_state_dict()
        draws = self._draws
        if state["generation"] != self._rows.generation:
            raise StaleSnapshotError(
                f"the state is of generation {state['generation']} of the memory, which is at {self._rows.generation} "
                "now, so other exemplars would be drawn; begin a new pass, without load_state_dict"
            )
        while True:
            drawn = self._rows.drawn(self._number + state["pass"], sampler=draws["sampler"], seed=draws["seed"])
            parts = np.array_split(drawn, draws["shards"])
            while state["shard_idx"] < len(self._shards):
                part = parts[self._shards[state["shard_idx"]]]
                for start in range(state["shard_example_idx"], len(part), draws["batch"]):
                    for row in self._rows.read(part[start : start + draws["batch"]]):
                        if self._rows.has_pixels and "image" in row:
                            row["image"] = Image.fromarray(row["image"])
                        state["shard_example_idx"] += 1
                        yield f"{state['pass']}_{state['shard_idx']}_{state['shard_example_idx']}", row
                state["shard_idx"], state["shard_example_idx"] = state["shard_idx"] + 1, 0
            if not draws["endless"]:
                return
            state["pass"], state["shard_idx"] = state["pass"] + 1, 0

    @override
    def shuffle_data_sources(self, generator: np.random.Generator) -> "_Passes":
        number = int(generator.integers(1, 2**31))  # `set_epoch` comes here, with a generator of the epoch
        return _Passes(self._rows, self._draws, self._features, self._shards, number)

    @override
    def shard_data_sources(self, num_shards: int, index: int, contiguous: bool = True) -> "_Passes":
        chosen = self.split_shard_indices_by_worker(num_shards, index, contiguous=contiguous)
        return _Passes(self._rows, self._draws, self._features, [self._shards[at] for at in chosen], self._number)

    @override
    def reshard_data_sources(self) -> "_Passes":
        return _Passes(self._rows, self._draws, self._features, self._shards, self._number)


def _feature(name: str, rows: MemoryRows) -> Any:
    """Return the type of a column of `datasets`."""
    schema = rows.schema
    if name in {"label", "slot"}:
        return datasets.Value("int64")
    if name in schema.extras:
        return _typed(tuple(schema.extras[name].shape), schema.extras[name].dtype)
    if name == "image" and rows.has_pixels:
        return datasets.Image()
    spec = schema.modalities[name.removesuffix("_valid")]
    if name.endswith("_valid") and name not in schema.modalities:
        return _typed((spec.positions,), np.bool_)
    return _typed((*([spec.positions] if spec.positions > 1 else []), *spec.shape), spec.dtype)


def _typed(shape: tuple[int, ...], dtype: DTypeLike) -> Any:
    value = datasets.Value(np.dtype(dtype).name)
    if len(shape) < 2:
        return datasets.List(value, length=shape[0]) if shape else value
    return getattr(datasets, f"Array{len(shape)}D")(shape=shape, dtype=value.dtype)


class ReplayCallback(TrainerCallback):
    """Replays exemplars beside the batches of one phase, and stores examples of the phase when its training ends.

    Training that is interrupted stores nothing; one that is resumed from a checkpoint replays what it would have, and a
    phase that was stored is not stored again. Evaluation replays nothing. Of several processes, rank 0 stores: the
    others may open the memory for reading.

    Parameters
    ----------
    memory : ExemplarMemory
        The memory, open for writing; empty before the first phase.
    examples : sequence of rows
        The phase's raw examples; see `PhaseReplay`.
    phase : int
        Its number, from 0.
    **options : object
        More options of `PhaseReplay`: make, transform, replay, columns, ...
    """

    def __init__(self, memory: ExemplarMemory, examples: Any, *, phase: int, **options: Any) -> None:
        self.replay = PhaseReplay(memory, examples, phase=phase, **options)

    @override
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let the training loader replay what is committed now."""
        loader = kwargs["train_dataloader"]
        loader = getattr(loader, "base_dataloader", loader)  # what accelerate wraps
        self.replay.into(loader, share=(args.process_index, args.world_size))

    @override
    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say how many batches were taken before, in this process or before it was resumed."""
        self.replay.begin(state.global_step * args.gradient_accumulation_steps)

    @override
    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Store examples of the phase."""
        self.replay.add(rank=args.process_index)
