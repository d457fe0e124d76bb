"""The wheel in fresh environments: the core alone, then each extra by itself."""

import json
import shutil

import pytest

from tests.packaging.building import ROOT
from tests.packaging.environments import TORCH, Environment

pytestmark = [pytest.mark.install, pytest.mark.slow, pytest.mark.timeout(1200)]

HERE = ROOT / "tests" / "packaging"


@pytest.fixture(scope="module")
def trained(built, tmp_path_factory):
    """An environment with the extra `train`; others are made on it, as torch is large."""
    environment = Environment(tmp_path_factory.mktemp("train") / "environment")
    environment.install(TORCH)
    environment.install(f"{built.wheel}[train]", constraints=[TORCH])
    yield environment
    shutil.rmtree(environment.folder)


@pytest.fixture(scope="module")
def small_data(trained, tests_alone):
    """A folder of the sources with a small data set, tiny models and configurations."""
    trained.run("-m", "tests.packaging.small_data", cwd=tests_alone)
    return tests_alone


@pytest.fixture
def with_extra(request, built, trained, tmp_path):
    """An environment with one extra, which has `train` in it."""
    environment = Environment(tmp_path / "environment", on=[trained.packages])
    environment.install(f"{built.wheel}[{request.param}]", constraints=[TORCH])
    yield environment
    shutil.rmtree(environment.folder)


def test_the_core_alone_keeps_exemplars_without_torch(built, tmp_path):
    environment = Environment(tmp_path / "environment")
    environment.install(str(built.wheel))
    environment.run(HERE / "embed.py", "core", cwd=tmp_path)
    found = json.loads(environment.program("exmem", "info", "memory", "--json", cwd=tmp_path))
    assert set(found["classes"]) == {"1", "2", "3"}
    assert found["used_bytes"] <= found["max_bytes"]
    environment.program("exmem", "check", "memory", cwd=tmp_path)
    file = environment.run("-c", "import exmem; print(exmem.__file__)", cwd=tmp_path)
    assert file.startswith(str(environment.packages))


def test_the_extra_test_runs_tests_of_the_core(built, tests_alone, tmp_path):
    environment = Environment(tmp_path / "environment")
    environment.install(f"{built.wheel}[test]")
    environment.run("-c", "import importlib.util as u; assert not u.find_spec('torch')", cwd=tmp_path)
    environment.run("-m", "pytest", "tests/tokens", "tests/memory/test_memory.py", "-m", "not torch", cwd=tests_alone)


def test_the_extra_train_learns_in_phases(trained, small_data):
    trained.program("exmem", "train", "data", "--out", "run", "--config", "train.yaml", cwd=small_data)
    found = json.loads(trained.program("exmem", "info", "run", "--json", cwd=small_data))
    assert found["used_bytes"] <= 40_000


@pytest.mark.parametrize("with_extra", ["demo"], indirect=True)
def test_the_extra_demo_draws_stickers_and_learns_with_packaged_weights(with_extra, small_data):
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><circle r="4"/></svg>'
    drawn = f"from exmem.cli.demo.stickers.artwork import render_svg; print(render_svg({svg!r}, 32).size)"
    assert with_extra.run("-c", drawn, cwd=small_data) == "(32, 32)\n"
    small = ["--data.first-classes", "2", "--data.increments", "1", "--loop.epochs", "1", "--max-bytes", "40kB"]
    with_extra.run(
        "-m", "exmem", "train", "data", "--out", "demo-run", "--backbone.image-size", "56", *small, cwd=small_data
    )


@pytest.mark.parametrize("with_extra", ["ray"], indirect=True)
def test_the_extra_ray_measures_cells_on_a_cluster(with_extra, small_data):
    words = ["tradeoff.yaml", "--out", "trade-off", "--executor", "ray"]
    with_extra.run("-m", "exmem", "tradeoff", *words, cwd=small_data)
    assert (small_data / "trade-off" / "table.csv").read_text().count("\n") > 1


@pytest.mark.parametrize("with_extra", ["docs"], indirect=True)
def test_the_extra_docs_builds_a_page_of_the_reference(with_extra, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("::: exmem.tokens.TokenSet\n")
    (tmp_path / "mkdocs.yml").write_text("site_name: page\ntheme: {name: material}\nplugins: [mkdocstrings]\n")
    with_extra.run("-m", "mkdocs", "build", "--strict", cwd=tmp_path)
    assert "positions" in (tmp_path / "site" / "index.html").read_text()


def test_the_citation_is_valid_by_its_schema(tmp_path):
    environment = Environment(tmp_path / "environment")
    environment.install("cffconvert==2.0.0")
    environment.program("cffconvert", "--validate", "-i", ROOT / "CITATION.cff", cwd=tmp_path)
