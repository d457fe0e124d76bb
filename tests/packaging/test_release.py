"""What is written beside the package agrees with it."""

import re

import yaml

import exmem
from tests.packaging.building import ROOT


def test_the_version_stands_in_one_place_and_heads_the_changelog():
    version = re.escape(exmem.__version__)
    heading = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert re.fullmatch(rf"{version} \((unreleased|\d{{4}}-\d\d-\d\d)\)", heading[1])
    for name in ("pyproject.toml", "CITATION.cff", "README.md", "requirements-dev.txt"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert re.findall(rf"\bversion\b.*{version}|\bexmem[-= ]+{version}", text) == [], name


def test_the_citation_names_the_contributors_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["authors"] == [{"name": "The exmem contributors"}]
    assert citation["license"] == "Apache-2.0"
    (paper,) = citation["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Lee", "Lee", "Chiu", "Tsai"]
    assert paper["identifiers"][0]["value"] == "arXiv:2412.09549"
