"""The methods that the trainer's page lists are options that `exmem train` takes together."""

import re
import shlex
from pathlib import Path

import pytest

from exmem.cli.commands import load_command
from exmem.cli.words import read_words
from exmem.errors import SchemaError

PAGE = Path(__file__).parent.parent.parent / "docs" / "howto" / "trainer.md"
METHODS = PAGE.read_text(encoding="utf-8").partition("## Methods")[2].partition("\n## ")[0]
OPTIONS = re.findall(r"^\| .+ \| `(--[^`]+)` \|$", METHODS, re.MULTILINE)


def test_there_are_methods():
    assert len(OPTIONS) > 10


@pytest.mark.parametrize("options", OPTIONS)
def test_the_options_of_a_method_go_together(options):
    words = ["DATA", "--out", "RUN", *shlex.split(options)]
    read_words(load_command("train"), words)


def test_options_that_do_not_go_together_would_be_refused():
    words = ["DATA", "--out", "RUN", *shlex.split("--recipe none --method.dark-weight 0.5")]
    with pytest.raises(SchemaError, match=r"method.dark_weight 0.5 needs the logits of exemplars"):
        read_words(load_command("train"), words)
