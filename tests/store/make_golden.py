"""Write the golden store of the release that runs this: `python -m tests.store.make_golden`. Run by hand, once."""

import json
from pathlib import Path

import exmem
from tests.exemplars import exemplar, schema

SEEDS = list(range(24))
EVICTED = [2, 7, 8, 23]


def main() -> None:
    folder = Path(__file__).parents[1] / "data" / f"format1-exmem{exmem.__version__}"
    given = [exemplar(seed, label=seed % 3, priority=-seed) for seed in SEEDS]
    with exmem.ExemplarMemory.create(folder / "store", schema=schema(), max_bytes="100kB") as memory:
        for start in range(0, len(given), 8):
            memory.add(given[start : start + 8])
            memory.commit()
        memory.evict(EVICTED)
        memory.update([5], priority=0.25)
        memory.charge("class means", 1536)
        memory.weigh({1: 2.0})
        memory.annotate(attrs={"source": "two photographs", "größe": [4, 4]}, class_names={0: "zero", 2: "zwölf"})
        held = memory.slots.tolist()
        expected = {
            "slots": held,
            "seeds": {str(slot): slot for slot in held},
            "priorities": {"5": 0.25},
            "charges": memory.charges,
            "max_bytes": memory.max_bytes,
            "next_slot": memory.next_slot,
            "attrs": memory.attrs,
            "class_names": {str(label): name for label, name in memory.class_names.items()},
            "quota": memory.quota.to_json(),
        }
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    main()
