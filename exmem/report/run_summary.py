"""What a run came to, as a page of Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from exmem.report.machine import described, peak_ram_bytes
from exmem.store import format_bytes
from exmem.train.config import TrainConfig
from exmem.train.folder import RunFolder
from exmem.train.metrics import (
    CHARGED,
    average_incremental_accuracy,
    backward_transfer,
    forgetting,
    kept_bytes,
    last_accuracy,
)

__all__ = ["summary_text"]


def summary_text(folder: RunFolder, config: TrainConfig, *, trained: str) -> str:
    """Return the summary of a run that has ended; `trained` says how many weights move."""
    entries = folder.metrics()
    known = described()
    machine = known["machine"]
    accelerator = f", {machine['accelerator']}" if machine["accelerator"] else ""
    seconds = sum(entry["seconds"] for entry in entries)
    lines = [
        f"# {config.recipe.name} in {config.max_bytes}",
        "",
        *_table(entries),
        "",
        *(f"- {line}" for line in _measures(entries)),
        f"- Bytes after the last phase: {_bytes(entries[-1])}.",
        f"- {trained[:1].upper()}{trained[1:]}.",
        f"- {seconds:,.0f} s in all phases; {format_bytes(peak_ram_bytes())} of RAM in the process that ended it.",
        f"- Seed {config.seed}, {_order(config)}; head {config.method.head}.",
        f"- {machine['system']} {machine['machine']}, {machine['cores']} cores{accelerator}; {known['versions']}.",
        "",
        "The same with `exmem train DATA --config config.yaml --out FOLDER`. What was measured: `metrics.jsonl`.",
        "",
    ]
    images = {
        "Accuracy after each phase": folder.accuracy_image,
        "Accuracy on the classes of each phase": folder.matrix_image,
        "Bytes of each class": folder.bytes_image,
        "Stored exemplars": folder.sheet,
    }
    lines += [f"![{what}]({path.name})\n" for what, path in images.items() if path.exists()]
    return "\n".join(lines)


def _table(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = ["phase", "classes", "head", "nearest mean", "exemplars", "bytes", "last loss", "seconds"]
    lines = [f"| {' | '.join(columns)} |", f"|{' --: |' * len(columns)}"]
    seen = 0
    for entry in entries:
        seen += len(entry["classes"])
        cells = [
            str(entry["phase"] + 1),
            str(seen),
            f"{entry['head']['all']:.1%}",
            f"{entry['ncm']['all']:.1%}",
            f"{entry['exemplars']:,}",
            f"{kept_bytes(entry):,}",
            f"{entry['losses'][-1]:.3f}" if entry["losses"] else "-",
            f"{entry['seconds']:,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _measures(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    overall, by_phase = [entry["head"]["all"] for entry in entries], [entry["head"]["by_phase"] for entry in entries]
    return [
        f"Average incremental accuracy {average_incremental_accuracy(overall):.1%}, last {last_accuracy(overall):.1%}.",
        f"Forgetting {forgetting(by_phase):.1%}, backward transfer {backward_transfer(by_phase):+.1%}.",
    ]


def _order(config: TrainConfig) -> str:
    seed = config.data.order_seed
    return "classes in the order of scenario.json" if seed is None else f"classes in the order of seed {seed}"


def _bytes(entry: Mapping[str, Any]) -> str:
    parts = [f"{what} {entry[name]:,}" for name, what in CHARGED.items() if entry.get(name)]
    return f"{kept_bytes(entry):,}" + (f" ({', '.join(parts)})" if len(parts) > 1 else "")
