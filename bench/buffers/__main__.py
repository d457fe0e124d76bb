"""`python -m bench.buffers PEER [--count N] [--size PIXELS]`: a peer's buffer and ours."""

import argparse
import importlib

from bench.buffers.sides import measured, ram, table

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("peer", choices=["avalanche", "mammoth", "pilot", "torchrl"])
parser.add_argument("--count", type=int, default=500)
parser.add_argument("--size", type=int, nargs="+", default=[32, 224])
given = parser.parse_args()
module = importlib.import_module(f"bench.buffers.{given.peer}")
rows = []
for size in given.size:
    for row in measured(module.sides(), count=given.count, size=size):
        grown = ram(f"bench.buffers.{given.peer}", row["buffer"], count=given.count, size=size)
        rows.append({**row, "ram_bytes": grown})
print(table(rows))
