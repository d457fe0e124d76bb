"""Writes golden payloads of this release; those of an old release are never overwritten.

Run `python -m tests.codecs.make_payloads`.
"""

import base64
import json
from pathlib import Path

import numpy as np

import exmem
from tests.codecs.cases import cases, values

FOLDER = Path(__file__).parents[1] / "data" / "payloads"


def main() -> None:
    found = []
    for case in cases():
        if int(np.prod(case.shape)) > 200:
            continue  # small ones are enough
        payload = case.codec().encode(values(case, 3))
        decoded = case.codec().decode(payload)
        texts = [base64.b64encode(data).decode() for data in (payload, decoded.tobytes())]
        found.append({"config": case.codec().get_config(), "payload": texts[0], "decoded": texts[1]})
    target = FOLDER / f"exmem-{exmem.__version__}.json"
    if target.exists():
        raise SystemExit(f"{target} exists; payloads of a release are written once")
    target.write_text(json.dumps(found, indent=0) + "\n")


if __name__ == "__main__":
    main()
