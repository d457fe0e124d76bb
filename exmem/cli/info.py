"""`exmem info`: what a memory holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from exmem.cli.output import make_console, print_table, write_json
from exmem.cli.places import find_store
from exmem.cli.runs import run_facts
from exmem.memory import ExemplarMemory
from exmem.store import format_bytes
from exmem.tokens import TokenSpec

__all__ = ["info"]


def info(path: Annotated[Path, tyro.conf.arg(metavar="STORE|RUN")], /, *, json: bool = False) -> None:
    """Describe a memory, or a run: schema, budget, exemplars of each class, accuracy after each phase.

    Parameters
    ----------
    path : Path
        Folder of the memory, or of a run.
    json : bool
        Answer with JSON instead of tables.
    """
    place, run = find_store(path)
    described: dict[str, Any] = {}
    if run is not None:
        described["run"] = run_facts(run)
    if run is None or (place / "zarr.json").exists():
        names = run.document()["data"]["classes"] if run is not None else []
        with ExemplarMemory.open(place) as memory:
            described |= _memory_facts(memory, dict(enumerate(names)))
    if json:
        write_json(described)
        return
    console = make_console()
    if run is not None:
        _print_run(console, described["run"])
    if "location" in described:
        _print_memory(console, described)


def _print_run(console: Console, run: Mapping[str, Any]) -> None:
    config, phases = run["config"], run["phases"]
    learnt = sum(phase["classes"] for phase in phases)
    console.print(
        f"{run['path']}: a run with recipe {config['recipe']['name']}, {len(phases)} phases finished, "
        f"{learnt} of {run['classes']} classes learnt"
    )
    rows = [
        (
            str(number),
            str(phase["classes"]),
            f"{phase['head']:.1%}",
            f"{phase['nearest_mean']:.1%}",
            f"{phase['exemplars']:,}",
            f"{phase['seconds']:.0f}",
        )
        for number, phase in enumerate(phases, 1)
    ]
    print_table(console, ("phase", "new classes", "head", "nearest mean", "exemplars", "seconds"), rows)


def _memory_facts(memory: ExemplarMemory, names: Mapping[int, str]) -> dict[str, Any]:
    """Return what is told of a memory; classes have the names that it was annotated with, or else those of its run."""
    return {
        "location": memory.location,
        "exemplars": len(memory),
        "used_bytes": memory.used_bytes,
        "max_bytes": memory.max_bytes,
        "max_exemplars": memory.max_exemplars,
        "part_bytes": memory.bytes_by_part(),
        "charges": memory.charges,
        "eviction": memory.eviction,
        "quota": memory.quota.to_json(),
        "recipe": None if memory.schema.recipe is None else dict(memory.schema.recipe),
        "modalities": {
            name: {
                "positions": spec.positions,
                "grid": spec.grid,
                "shape": list(spec.shape),
                "dtype": str(spec.dtype),
                "codec": _codec(spec),
            }
            for name, spec in memory.schema.modalities.items()
        },
        "extras": {name: extra.to_json() for name, extra in memory.schema.extras.items()},
        "attrs": memory.attrs,
        "class_names": {str(label): name for label, name in {**names, **memory.class_names}.items()},
        "classes": {
            str(label): {
                "exemplars": held.exemplars,
                "payload_bytes": held.payload_bytes,
                "quota_bytes": held.quota_bytes,
                "weight": memory.quota.weights.get(label, 1.0),
            }
            for label, held in sorted(memory.summary().items())
        },
    }


def _print_memory(console: Console, memory: Mapping[str, Any]) -> None:
    console.print(
        f"{memory['location']}: {memory['exemplars']} exemplars, {format_bytes(memory['used_bytes'])} of "
        f"{format_bytes(memory['max_bytes'])}, eviction {memory['eviction']}, quota {memory['quota']['unit']}"
    )
    recipe = (memory["recipe"] or {}).get("recipe")
    if isinstance(recipe, Mapping):
        parts = ", ".join(f"{name} {value}" for name, value in recipe.items() if name != "name" and value)
        console.print(f"  recipe {recipe.get('name')}: {parts}")
    for name, spec in memory["modalities"].items():
        codec = ", ".join(str(value) if key == "id" else f"{key} {value}" for key, value in spec["codec"].items())
        console.print(f"  {name}: {spec['positions']} positions of {spec['shape']} {spec['dtype']}, {codec}")
    for name, extra in memory["extras"].items():
        console.print(f"  extra {name}: {extra['shape']} {extra['dtype']}")
    sizes = (f"{name} {format_bytes(size)}" for name, size in memory["part_bytes"].items())
    console.print(f"  bytes: {', '.join(sizes)}")
    rows = []
    for label, held in memory["classes"].items():
        numbers = (f"{held[name]:,}" for name in ("exemplars", "payload_bytes", "quota_bytes"))
        name = memory["class_names"].get(label)
        rows.append((f"{label} {name}" if name else label, *numbers, f"{held['weight']:g}"))
    print_table(console, ("class", "exemplars", "payload bytes", "quota bytes", "weight"), rows)


def _codec(spec: TokenSpec) -> dict[str, Any]:
    """Return name and options of a codec; of long ones (headers, codebooks) the number of characters."""
    config = dict(spec.codec) if isinstance(spec.codec, Mapping) else {"id": spec.codec}
    long = {key: f"{len(str(value))} characters" for key, value in config.items() if len(str(value)) > 60}
    return config | long
