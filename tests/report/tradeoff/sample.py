"""A table of a trade-off that nobody ran, for tests of what is made of one."""

import numpy as np
import pandas as pd

from exmem.report.tradeoff.findings import Findings
from exmem.report.tradeoff.table import COLUMNS, FAILURE_COLUMNS

BUDGETS = {"60 kB": 60_000, "125 kB": 125_000, "250 kB": 250_000, "500 kB": 500_000, "1 MB": 1_000_000}
LEVELS = {"hidden_4": "hidden", "hidden_8": "hidden", "features_1_bit": "features", "text": "none"}
NASTY = "<script>alert('x')</script> \"q\" & [b] {{ 7 * 7 }} ünï 名 </textarea>"
RECIPES = ["raw", "jpeg", "half_jpeg", "masked_q30", "hidden_4", "hidden_8", "features_1_bit", "text"]


def row(**changes):
    """A row of a table, a probe's unless it is changed."""
    names = {"kind": "probe", "data": "own", "recipe": "half_jpeg", "method": "default", "budget": "60 kB", "seed": 0}
    measures = {"phase": 0, "bytes": 59_000, "exemplars": 40, "exemplar_bytes": 1475.0, "average": 0.5, "last": 0.5}
    more = {"forgetting": np.nan, "seconds": 2.0, "step_ms": 30.0, "peak_ram_bytes": 2**30, "versions": "exmem 0.1.0"}
    known = {
        "budget_bytes": BUDGETS.get(changes.get("budget", "60 kB"), 60_000),
        **names,
        **measures,
        **more,
        **changes,
    }
    known["last"] = changes.get("last", known["average"])
    cell = "_".join(str(known[name]) for name in ("kind", "data", "recipe", "method", "budget", "seed"))
    return {"cell": f"cells/{cell}", **known}


def table_of(*rows):
    """A table of some rows."""
    return pd.DataFrame(rows, columns=COLUMNS)


def sampled(*, recipes=RECIPES, seeds=3, data=("image", "both"), budgets=BUDGETS):
    """A table as a sweep of probes and trainers leaves it: recipes differ, and grow with their budget."""
    rng, rows = np.random.default_rng(0), []
    for kind, method in (("probe", "default"), ("trainer", "finetuned")):
        for name in data:
            for at, recipe in enumerate(recipes):
                for budget, size in list(budgets.items())[:: 1 if kind == "probe" else 2]:
                    for seed in range(seeds):
                        height = 0.3 + 0.02 * at + 0.09 * np.log2(size / 60_000) + rng.normal(0, 0.012)
                        full = min(size * 0.97, 420_000) if recipe.startswith("features") else size * 0.97
                        numbers = {"bytes": int(full), "average": float(min(height, 0.95)), "exemplars": size // 1500}
                        for phase in [0] if kind == "probe" else [0, 1]:
                            more = {"forgetting": 0.05 * phase if kind == "trainer" else np.nan, "phase": phase}
                            more |= {"last": numbers["average"] - 0.08} if kind == "trainer" else {}
                            names = {"kind": kind, "method": method, "data": name, "recipe": recipe, "budget": budget}
                            rows.append(row(**names, **numbers, **more, seed=seed))
    return table_of(*rows)


def findings(table=None, **changes):
    """Findings of a table, the sampled one when it is left out."""
    table = sampled() if table is None else table
    failures = pd.DataFrame(
        [["trainer", "image", "text", "frozen", "60 kB", 60_000, 0, "a learner of images sees no text", "cells/x"]],
        columns=FAILURE_COLUMNS,
    )
    failures = changes.get("failures", failures)
    recipes = list(dict.fromkeys([*table["recipe"], *failures["recipe"]]))
    known = {"table": table, "failures": failures, "recipes": recipes, "levels": LEVELS, "baseline": recipes[0]}
    known["baseline"] = "half_jpeg" if "half_jpeg" in recipes else recipes[0]
    known |= {"configuration": "data:\n  image: ~/images\n", "command": "exmem tradeoff sweep.yaml --out results"}
    return Findings(**{**known, "written": "2026-01-02 03:04", "left": 2, **changes})
