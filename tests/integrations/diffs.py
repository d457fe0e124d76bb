"""Loops of others before and after, as the page `docs/howto/embed.md` shows them."""

import re
from pathlib import Path

PAGE = Path(__file__).parent.parent.parent / "docs" / "howto" / "embed.md"
MOST_LINES = 5


def loops():
    """The blocks that show a change, by the heading above each: (before, after, lines that are new)."""
    text = PAGE.read_text(encoding="utf-8")
    found = {}
    for block in re.finditer(r"```diff\n(.*?)```", text, re.DOTALL):
        name = re.findall(r"^## (.+)$", text[: block.start()], re.MULTILINE)[-1]
        lines = block[1].splitlines()
        before, after = ([line[1:] for line in lines if line[:1] != sign] for sign in "+-")
        found[name] = "\n".join(before), "\n".join(after), sum(line[:1] == "+" for line in lines)
    return found
