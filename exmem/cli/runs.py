"""What is told of a run of the trainer in JSON, by every command the same."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exmem.train.folder import RunFolder

__all__ = ["run_facts"]


def run_facts(run: "RunFolder") -> dict[str, Any]:
    """Return what a run measured after each phase and in all, and how it was configured; null before its first phase.

    `average`, `last` and `forgetting` are of the head; `kept_bytes` is all that it keeps after its last phase.
    """
    from exmem.train.metrics import average_incremental_accuracy, forgetting, kept_bytes, last_accuracy

    known, entries = run.document(), run.metrics()
    overall = [entry["head"]["all"] for entry in entries]
    return {
        "path": str(run.path.absolute()),
        "recipe": known["config"]["recipe"]["name"],
        "classes": len(known["data"]["classes"]),
        "average": average_incremental_accuracy(overall) if entries else None,
        "last": last_accuracy(overall) if entries else None,
        "forgetting": forgetting([entry["head"]["by_phase"] for entry in entries]) if entries else None,
        "exemplars": entries[-1]["exemplars"] if entries else None,
        "kept_bytes": kept_bytes(entries[-1]) if entries else None,
        "seconds": sum(entry["seconds"] for entry in entries),
        "phases": [
            {
                "classes": len(entry["classes"]),
                "head": entry["head"]["all"],
                "nearest_mean": entry["ncm"]["all"],
                "exemplars": entry["exemplars"],
                "kept_bytes": kept_bytes(entry),
                "seconds": entry["seconds"],
            }
            for entry in entries
        ],
        "config": known["config"],
    }
