"""Write the golden store of the release that runs this: `python -m tests.data.make_golden`. Run by hand, once."""

import json
from pathlib import Path

import exmem
from tests.exemplars import exemplar, schema


def main() -> None:
    folder = Path(__file__).parent / f"format1-exmem{exmem.__version__}"
    seeds = list(range(12))
    with exmem.ExemplarMemory.create(folder / "store", schema=schema(), max_bytes="100kB") as memory:
        memory.add([exemplar(seed, label=seed % 3, priority=-seed) for seed in seeds])
        memory.commit()
        memory.evict([2, 7])
        memory.charge("class means", 1536)
        expected = {"slots": memory.slots.tolist(), "seeds": [0, 1, *range(3, 7), *range(8, 12)]}
        expected["charges"] = memory.charges
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    main()
