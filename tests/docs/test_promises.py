"""Each promise names tests that hold it, and those are there."""

import re

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "explanation" / "promises.md").read_text(encoding="utf-8")


def named(text):
    return re.findall(r"^- `(tests/\S+)::(\w+)`$", text, re.MULTILINE)


def test_every_promise_names_tests():
    promises = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    assert [promise[:2] for promise in promises] == [f"{number}." for number in range(1, 8)]
    assert all(len(named(promise)) > 1 for promise in promises)


def functions_of(path):
    return re.findall(r"^def (test_\w+)\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)


def test_every_test_that_a_promise_names_is_there():
    assert [f"{path}::{name}" for path, name in named(PAGE) if name not in functions_of(path)] == []


def test_every_test_is_named_in_the_form_that_is_looked_for():
    assert len(named(PAGE)) == PAGE.count("::test_")
