"""What the store reaches: speeds beside what bounds them, sizes, RAM, and what cleaning copies.

`python -m bench.store` runs everything and prints one table, `python -m bench.store reading adding` some of it (the
names are those of the functions in `PARTS`); `--most 5` stops at 10^5 exemplars. Everything lies on `/dev/shm` where
there is one, so that no disk is measured.
"""

import argparse
import ctypes
import multiprocessing
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from bench.peers import from_datasets
from bench.photographs import BATCH, COUNT, KEPT, PATCH, SPEC, fill, masked
from bench.streams import PAIRS, Cleaning, Puts, arrays, class_incremental, pairs, payloads, raw_schema
from bench.timing import in_turn, resident_bytes
from exmem import Exemplar, ExemplarMemory, Schema
from exmem.codecs import get_codec
from exmem.memory.reservoir import StreamReservoir

Row = tuple[str, str, str]  # what, what is to be reached, what was found


def reading(root: Path, _: int) -> Iterator[Row]:
    """Raw payloads in random batches, beside copying arrays and beside `datasets`."""
    given, _, _ = fill(root / "m", "raw")
    sets = [exemplar.tokens["image"] for exemplar in given]
    memory = ExemplarMemory.open(root / "m", threads=2)
    slots = memory.slots

    def ours(picks: np.ndarray, reader: ExemplarMemory = memory) -> tuple[np.ndarray, np.ndarray]:
        tokens = reader.read(slots[picks]).tokens["image"]
        return tokens.values, tokens.positions

    def copied(picks: np.ndarray) -> np.ndarray:
        values = np.empty((BATCH, KEPT, PATCH, PATCH, 3), np.uint8)
        for at, pick in enumerate(picks.tolist()):
            values[at] = sets[pick].values
        return values

    works, rng = [ours, copied], np.random.default_rng(0)
    theirs = from_datasets(root / "arrow", sets)
    if theirs is not None:
        works.append(theirs)
    picks = [rng.choice(COUNT, BATCH, replace=False) for _ in range(40)]
    for part in (picks[0], *np.arange(COUNT).reshape(-1, BATCH)):  # now every payload was read once
        for work in works:
            found = work(part)
            values = found if work is copied else found[0]
            np.testing.assert_array_equal(values, np.stack([sets[pick].values for pick in part]))
            if work is not copied:
                np.testing.assert_array_equal(found[1], np.stack([sets[pick].positions for pick in part]))
    mine, copying, *others = in_turn(works, picks)
    yield "random batches of 64, raw, of copying in RAM", ">= 0.8", f"{copying / mine:.2f}"
    peer = f"{others[0] / mine:.2f} times as fast" if others else "not installed"
    yield "the same, beside Hugging Face datasets", "> 1", peer
    always = ExemplarMemory.open(root / "m", threads=2, verify="always")
    checked, copying = in_turn([lambda part: ours(part, always), copied], picks[:20])
    yield "the same, every checksum compared each time, of copying", "", f"{copying / checked:.2f}"

    fresh = [(ExemplarMemory.open(root / "m", threads=2), part) for part in picks[:20]]
    new, copying = in_turn([lambda given: ours(given[1], given[0]), lambda given: copied(given[1])], fresh)
    yield "the same, the first batch that a memory reads (mapped and verified), of copying", "", f"{copying / new:.2f}"


def adding(root: Path, _: int) -> Iterator[Row]:
    """256 photographs to JPEG, creating and closing included, beside the encoder alone on as many threads."""
    given = [Exemplar({"image": masked(seed)}, label=seed % 10) for seed in range(COUNT)]
    bare = get_codec(SPEC.codec, shape=SPEC.shape, dtype=SPEC.dtype)
    pool, numbers = ThreadPoolExecutor(2), iter(range(10**6))

    def encoded(_: int) -> list[bytes]:
        return list(pool.map(lambda exemplar: bare.encode(exemplar.tokens["image"].values), given))

    def store(batch: int, *, durable: bool) -> Callable[[int], None]:
        def work(_: int) -> None:
            place = root / str(next(numbers))
            with ExemplarMemory.create(
                place, schema=Schema({"image": SPEC}), max_bytes="64MB", threads=2, durable=durable
            ) as memory:
                for start in range(0, COUNT, batch):
                    assert (memory.add(given[start : start + batch]).slots >= 0).all()

        return work

    ways = [(batch, durable) for batch in (COUNT, 10) for durable in (False, True)]
    encoder, *times = in_turn([encoded, *(store(batch, durable=durable) for batch, durable in ways)], range(9))
    pool.shutdown()
    for (batch, durable), seconds in zip(ways, times, strict=True):
        how = "at once" if batch == COUNT else "in batches of 10"
        reach = ">= 0.9" if batch == COUNT else ">= 0.8"
        what = f"adding 256 photographs {how}, {'durable' if durable else 'not durable'}, of the bare encoder"
        yield what, reach, f"{encoder / seconds:.2f}"


def online(root: Path, most: int) -> Iterator[Row]:
    """One exemplar of 1,000 bytes and a commit at a time, memories of several sizes in turn."""
    for goes, powers in (("any", (3, 5, 6)), ("the oldest", (3, 5))):
        held = [10**power for power in powers if power <= most]
        memories = [_held(root / f"{goes}-{count}", count, oldest_first=goes != "any") for count in held]
        if goes == "any":
            yield from _online(root, "below the brim", memories, held)
        for memory in memories:
            memory.resize(memory.max_bytes - memory.free_bytes)
        yield from _online(root, f"at the brim, {goes} may go", memories, held)
        for memory in memories:
            memory.close()


def budgets(root: Path, _: int) -> Iterator[Row]:
    """Exemplars one at a time with a commit each, until one goes."""
    for max_bytes, size, reach in ((30_000, 700, 85), (250_000, 700, 96), (64_000_000, 12_000, 98.5)):
        with ExemplarMemory.create(
            root / str(max_bytes), schema=raw_schema(size), max_bytes=max_bytes, durable=False, threads=1
        ) as memory:
            number, payload = 0, 0
            while True:
                used = memory.used_bytes
                report = memory.add(payloads(number, 1, size, better=True))
                if len(report.evicted) or report.slots[0] < 0:
                    break
                memory.commit()
                number, payload = number + 1, payload + report.added_bytes
        found = f"{100 * used / max_bytes:.1f} % ({number:,} held; payload {100 * payload / max_bytes:.1f} %)"
        yield f"used at the first eviction, {max_bytes:,} bytes, exemplars of {size:,}", f">= {reach} %", found


def ram(root: Path, most: int) -> Iterator[Row]:
    """Growth of a process that opens a memory of images and text; peak of adding, as Python allocates it."""
    count = 10 ** min(most, 6)
    for name, number in (("small", 2000), ("large", count)):
        with ExemplarMemory.create(
            root / name, schema=PAIRS, max_bytes=1000 * number + 100_000, durable=False, threads=1
        ) as memory:
            for first in range(0, number, 1000):
                assert (memory.add(pairs(first, 1000)).slots >= 0).all()
    spawn = multiprocessing.get_context("spawn")
    for mode in ("reader", "writer", "writer that evicts"):
        with ProcessPoolExecutor(1, mp_context=spawn) as process:
            grown, kept = process.submit(_grown_bytes, root, mode).result()
        found = f"{kept / count:.0f} B ({grown / count:.0f} B before what is free goes back to the system)"
        yield f"RAM an exemplar, image and text, {count:,} held, {mode}", "<= 64 B", found
    yield "peak of adding 10 at the brim, over three segments and the batch", "<= 1", f"{_peak_ratio(root / 'p'):.2f}"


def cleaning(root: Path, _: int) -> Iterator[Row]:
    """Bytes of survivors that were copied over bytes of the dead that were given back, in memories that stay full."""
    for max_bytes in (1_000_000, 8_000_000):
        for stream in ("class-incremental", "uniform reservoir"):
            eviction = "by_class" if stream == "class-incremental" else "by_priority"
            with (
                ExemplarMemory.create(
                    root / f"{max_bytes}-{eviction}",
                    schema=raw_schema(2000),
                    max_bytes=max_bytes,
                    eviction=eviction,
                    durable=False,
                    threads=1,
                ) as memory,
                Cleaning() as found,
            ):
                if eviction == "by_class":
                    for batch in class_incremental(phases=10, classes=10, each=max_bytes // 40_000, size=2000):
                        memory.add(batch)
                        memory.commit()
                else:
                    reservoir = StreamReservoir(memory, seed=1)
                    for first in range(0, 5 * max_bytes // 1000, 100):
                        reservoir.add(payloads(first, 100, 2000))
                        memory.commit()
                assert memory.used_bytes > 0.9 * max_bytes
            told = f"{found.ratio:.2f} ({found.times:,} segments; {found.put_ratio:.2f} with all that was put for it)"
            reach = "<= 2" if eviction == "by_class" else "<= 31"
            yield f"copied by cleaning over freed, {stream}, {max_bytes // 10**6} MB", reach, told


PARTS = {work.__name__: work for work in (reading, adding, online, budgets, ram, cleaning)}


def _held(folder: Path, count: int, *, oldest_first: bool) -> ExemplarMemory:
    """A memory with room for twice what it holds; at the brim later those go that came first, or that lie anywhere."""
    memory = ExemplarMemory.create(
        folder, schema=raw_schema(1000), max_bytes=2200 * count + 3_000_000, durable=False, threads=1
    )
    for first in range(0, count, 1000):
        ranks = np.arange(first, first + 1000) / count if oldest_first else np.random.default_rng(first).random(1000)
        assert (memory.add_batch(*arrays(first, 1000, 1000), priorities=ranks).slots >= 0).all()
    memory.commit()
    return memory


def _online(root: Path, where: str, memories: list[ExemplarMemory], held: list[int]) -> Iterator[Row]:
    step, bare = 50, bytes(1000)

    def adder(memory: ExemplarMemory) -> Callable[[list[Exemplar]], None]:
        def work(block: list[Exemplar]) -> None:
            for exemplar in block:
                assert memory.add([exemplar]).slots[0] >= 0
                memory.commit()

        return work

    def five_puts(block: list[Exemplar]) -> None:
        for _ in range(5 * len(block)):
            (root / "new").write_bytes(bare)
            (root / "new").replace(root / "bare")

    start = 10**7 + max(memory.next_slot for memory in memories)
    works = [five_puts, *map(adder, memories)]
    in_turn(works, [payloads(start + step * turn, step, 1000, better=True) for turn in range(6)])
    start += 6 * step
    files, *times = in_turn(works, [payloads(start + step * turn, step, 1000, better=True) for turn in range(16)])
    block = payloads(start + 16 * step, 200, 1000, better=True)
    for memory, seconds, count in zip(memories, times, held, strict=True):
        with Puts() as puts, Cleaning() as cleaned:
            adder(memory)(block)
        found = memory.read(memory.slots[-len(block) :]).tokens["values"].values
        np.testing.assert_array_equal(found, np.stack([exemplar.tokens["values"].values for exemplar in block]))
        told = f"{step / seconds:,.0f}/s, {files / seconds:.2f} of five bare files; {puts.count / len(block):.2f} puts"
        if cleaned.times:
            told += f", {cleaned.ratio:.0f} copied over freed"
        yield f"online adds, {where}, {count:,} held", ">= 1,000/s, <= 5 puts", told


def _grown_bytes(root: Path, mode: str) -> tuple[int, int]:
    """In a process of its own: bytes that it grew by, at once and once glibc gave back what is free.

    The small memory takes the imports and the pools.
    """
    for name in ("small", "large"):
        ctypes.CDLL(None).malloc_trim(0)
        before = resident_bytes()
        memory = ExemplarMemory.open(root / name, mode="r" if mode == "reader" else "r+", durable=False, threads=1)
        if mode == "writer that evicts":
            memory.resize(memory.max_bytes - memory.free_bytes)
            assert len(memory.add(pairs(10**7, 10)).evicted)
        grown = resident_bytes() - before
        ctypes.CDLL(None).malloc_trim(0)
    return grown, resident_bytes() - before


def _peak_ratio(folder: Path) -> float:
    """64 MB of 12 kB; what is held, the catalog and the order among it, is there before."""
    size, count, number, gone = 12_000, 10, 0, 0
    with ExemplarMemory.create(folder, schema=raw_schema(size), max_bytes="64MB", durable=False, threads=1) as memory:
        while gone < 500:
            gone += len(memory.add(payloads(number, count, size, better=True)).evicted)
            memory.commit()
            number += count
        target, batch, peaks = memory._store.state.target, payloads(number, count, size, better=True), []
        tracemalloc.start()
        for _ in range(60):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            memory.add(batch)
            memory.commit()
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
        tracemalloc.stop()
    return sorted(peaks)[-2] / (3 * target + size * count)  # the highest can be a table of Python that grew


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="what to run; everything when left out")
    parser.add_argument("--most", type=int, default=6, help="power of ten of the largest memory")
    arguments = parser.parse_args()
    where = "/dev/shm" if Path("/dev/shm").is_dir() else None
    print("| what | reach | found |\n| --- | ---: | ---: |")
    for name in arguments.parts or PARTS:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=where) as folder:
            for row in PARTS[name](Path(folder), arguments.most):
                print(f"| {' | '.join(row)} |", flush=True)
        print(f"<!-- {name}: {time.perf_counter() - start:.0f} s -->", flush=True)


if __name__ == "__main__":
    main()
