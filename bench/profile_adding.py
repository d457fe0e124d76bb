"""Where the time of adding goes: photographs in batches of 10, and small exemplars one by one with a commit each.

`python -m bench.profile_adding`: one thread, not durable, on `/dev/shm` where there is one; times within the profiler.
"""

import cProfile
import pstats
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.photographs import COUNT, SPEC, masked
from bench.streams import payloads, raw_schema
from exmem import Exemplar, ExemplarMemory, Schema

PARTS = {
    "add": "everything in `add`",
    "encode_exemplars": "encoding, with validation and rows",
    "_encode_image": "the JPEG encoder",
    "shortage": "what would be missing",
    "_check_fits_alone": "whether one is too large",
    "_victims": "who goes",
    "_clean_one": "cleaning",
    "evict": "evicting",
    "stage": "staging, with putting full segments",
    "commit": "everything in `commit`",
    "era_documents": "metadata of arrays, made to know its size",
    "put": "files",
}


def profiled(memory: ExemplarMemory, work: Callable[[ExemplarMemory], None], title: str) -> None:
    """Print the seconds within functions of exmem by name, and the files that calls of `add` went through."""
    profile = cProfile.Profile()
    profile.enable()
    work(memory)
    profile.disable()
    stats, found = pstats.Stats(profile), {}
    for (file, _, name), (_, _, _, seconds, _) in stats.stats.items():
        if "exmem/" in file:
            found[name] = max(found.get(name, 0.0), seconds)
    print(f"{title}: {1e3 * stats.total_tt:.0f} ms")
    for name, what in PARTS.items():
        if name in found:
            print(f"  {what:44}{name:20}{found[name] / stats.total_tt:5.0%}")
    files = {
        file.partition("exmem/")[2] for file, _, _ in stats.stats if "exmem/memory" in file or "exmem/store" in file
    }
    print(f"  files of exmem.memory and exmem.store: {len(files)}")


def in_tens(memory: ExemplarMemory) -> None:
    given = [Exemplar({"image": masked(seed)}, label=seed % 10) for seed in range(COUNT)]
    profiled(
        memory,
        lambda memory: [memory.add(given[start : start + 10]) for start in range(0, COUNT, 10)],
        "256 photographs in batches of 10",
    )


def one_by_one(memory: ExemplarMemory) -> None:
    def online(first: int) -> Callable[[ExemplarMemory], None]:
        block = payloads(first, 300, 1000, better=True)

        def work(memory: ExemplarMemory) -> None:
            for exemplar in block:
                memory.add([exemplar])
                memory.commit()

        return work

    memory.add(payloads(0, 20_000, 1000, better=True))
    memory.commit()
    profiled(memory, online(20_000), "300 exemplars of 1,000 bytes one by one, below the brim")
    memory.resize(memory.max_bytes - memory.free_bytes)
    online(30_000)(memory)
    profiled(memory, online(40_000), "the same at the brim")


def main() -> None:
    where = "/dev/shm" if Path("/dev/shm").is_dir() else None
    for schema, work in ((Schema({"image": SPEC}), in_tens), (raw_schema(1000), one_by_one)):
        with (
            tempfile.TemporaryDirectory(dir=where) as folder,
            ExemplarMemory.create(
                Path(folder) / "m", schema=schema, max_bytes="64MB", threads=1, durable=False
            ) as memory,
        ):
            work(memory)


if __name__ == "__main__":
    main()
