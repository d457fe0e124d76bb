"""The README's loops of others, before and after, as they stand there."""

import re
from pathlib import Path

README = Path(__file__).parent.parent.parent / "README.md"
MOST_LINES = 5


def loops():
    """The blocks that show a change, by what stands in bold before each: (before, after, lines that are new)."""
    text = README.read_text(encoding="utf-8")
    found = {}
    for block in re.finditer(r"```diff\n(.*?)```", text, re.DOTALL):
        name = re.findall(r"^\*\*([^*]+?):?\*\*", text[: block.start()], re.MULTILINE)[-1]
        lines = block[1].splitlines()
        before, after = ([line[1:] for line in lines if line[:1] != sign] for sign in "+-")
        found[name] = "\n".join(before), "\n".join(after), sum(line[:1] == "+" for line in lines)
    return found
