"""The pages of the documentation: their fenced blocks, and whether each is run and what it has to print."""

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"
RUN = ("python", "sh")
SHOWN = ("text", "yaml", "diff", "toml", "json")
FENCE = re.compile(
    r"""^(?P<indent>\ *)(?P<ticks>`{3,})(?P<language>[^\s`]*)[^\n`]*\n  # the fence that opens
        (?P<code>.*?)
        ^(?P=indent)(?P=ticks)\ *$""",
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
MARK = re.compile(r"<!-- (not run: (?P<reason>.+?)|output) -->\s*\Z", re.DOTALL)
# Why blocks of the README are not run, by the first line of each: there they bear no marks.
README_NOT_RUN = {
    "make demo    # class-incremental learning on real images and texts, minutes on two cores": "takes minutes",
    'pip install "exmem[train,demo]"': "needs the network",
}


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block, and the line of its first line of code."""

    language: str
    code: str
    line: int
    not_run: str | None
    is_output: bool

    @property
    def runs(self) -> bool:
        return self.language in RUN and self.not_run is None


def pages() -> list[Path]:
    """Every Markdown file that is documentation: the site's, the README, and those beside what they describe."""
    folders = ("docs", "bench", "examples", "exmem", "tests")
    inside = [path for folder in folders for path in (ROOT / folder).rglob("*.md")]
    return sorted({*ROOT.glob("*.md"), *inside})


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found, end = [], 0
    for fence in FENCE.finditer(text):
        code = textwrap.dedent(fence["code"])
        mark = MARK.search(text, end, fence.start())
        reason = mark["reason"] if mark else None
        if page == README and reason is None:
            reason = README_NOT_RUN.get(code.partition("\n")[0])
        is_output = mark is not None and mark["reason"] is None
        line = text.count("\n", 0, fence.start("code")) + 1
        found.append(Block(language=fence["language"], code=code, line=line, not_run=reason, is_output=is_output))
        end = fence.end()
    return found
