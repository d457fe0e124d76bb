"""`exmem info`: what a memory holds."""

from collections.abc import Mapping
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import tyro

from exmem.cli.output import make_console, print_table
from exmem.memory import ExemplarMemory
from exmem.store import format_bytes
from exmem.tokens import TokenSpec

__all__ = ["info"]


def info(path: Annotated[Path, tyro.conf.arg(metavar="STORE")], /, *, json: bool = False) -> None:
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
        described: dict[str, Any] = {
            "location": memory.location,
            "exemplars": len(memory),
            "used_bytes": memory.used_bytes,
            "max_bytes": memory.max_bytes,
            "max_exemplars": memory.max_exemplars,
            "bytes": memory.bytes_by_part(),
            "charges": memory.charges,
            "eviction": memory.eviction,
            "quota": memory.quota.to_json(),
            "modalities": {
                name: {
                    "positions": spec.positions,
                    "shape": list(spec.shape),
                    "dtype": str(spec.dtype),
                    "codec": _codec(spec),
                }
                for name, spec in memory.schema.modalities.items()
            },
            "extras": {name: extra.to_json() for name, extra in memory.schema.extras.items()},
            "attrs": memory.attrs,
            "class_names": {str(label): name for label, name in memory.class_names.items()},
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
    console = make_console()
    if json:
        console.print_json(dumps(described))
        return
    console.print(
        f"{described['location']}: {described['exemplars']} exemplars, "
        f"{format_bytes(memory.used_bytes)} of {format_bytes(memory.max_bytes)}, "
        f"eviction {memory.eviction}, quota {memory.quota.unit}"
    )
    for name, spec in described["modalities"].items():
        codec = ", ".join(str(value) if key == "id" else f"{key} {value}" for key, value in spec["codec"].items())
        console.print(f"  {name}: {spec['positions']} positions of {spec['shape']} {spec['dtype']}, {codec}")
    for name, extra in described["extras"].items():
        console.print(f"  extra {name}: {extra['shape']} {extra['dtype']}")
    parts = ", ".join(f"{name} {format_bytes(size)}" for name, size in described["bytes"].items())
    console.print(f"  bytes: {parts}")
    rows = []
    for label, held in described["classes"].items():
        numbers = (f"{held[name]:,}" for name in ("exemplars", "payload_bytes", "quota_bytes"))
        name = memory.class_names.get(int(label))
        rows.append((f"{label} {name}" if name else label, *numbers, f"{held['weight']:g}"))
    print_table(console, ("class", "exemplars", "payload bytes", "quota bytes", "weight"), rows)


def _codec(spec: TokenSpec) -> dict[str, Any]:
    """Return name and options of a codec; of long ones (headers, codebooks) the number of characters."""
    config = dict(spec.codec) if isinstance(spec.codec, Mapping) else {"id": spec.codec}
    long = {key: f"{len(str(value))} characters" for key, value in config.items() if len(str(value)) > 60}
    return config | long
