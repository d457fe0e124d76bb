"""`exmem info`: what a memory holds."""

from json import dumps
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from exmem.budget import format_bytes
from exmem.memory import ExemplarMemory

__all__ = ["info"]


def info(path: Path, /, *, json: bool = False) -> None:
    """Describe a memory: schema, budget, exemplars of each class.

    Parameters
    ----------
    path : Path
        Folder of the memory.
    json : bool
        Print JSON instead of a table.
    """
    with ExemplarMemory.open(path) as memory:
        summary = memory.summary()
        found: dict[str, Any] = {
            "location": memory.location,
            "exemplars": len(memory),
            "used_bytes": memory.used_bytes,
            "max_bytes": memory.max_bytes,
            "charges": memory.charges,
            "eviction": memory.eviction,
            "quota": memory.quota.to_json(),
            "modalities": {
                name: {"positions": spec.positions, "shape": list(spec.shape), "dtype": str(spec.dtype)}
                for name, spec in memory.schema.modalities.items()
            },
            "classes": {
                str(label): {
                    "exemplars": held.exemplars,
                    "payload_bytes": held.payload_bytes,
                    "quota_bytes": held.quota_bytes,
                    "weight": memory.quota.weights.get(label, 1.0),
                }
                for label, held in sorted(summary.items())
            },
        }
    console = Console()
    if json:
        console.print_json(dumps(found))
        return
    console.print(
        f"{found['location']}: {found['exemplars']} exemplars, "
        f"{format_bytes(found['used_bytes'])} of {format_bytes(found['max_bytes'])}, eviction {found['eviction']}, "
        f"quota {memory.quota.unit}",
        highlight=False,
    )
    for name, spec in found["modalities"].items():
        console.print(f"  {name}: {spec['positions']} positions of {spec['shape']} {spec['dtype']}", highlight=False)
    table = Table("class", "exemplars", "payload bytes", "quota bytes", "weight")
    for label, held in found["classes"].items():
        numbers = (f"{held[name]:,}" for name in ("exemplars", "payload_bytes", "quota_bytes"))
        table.add_row(label, *numbers, f"{held['weight']:g}")
    console.print(table)
