"""`exmem check`, `repair`, `compact`, `export` and `import`, as scripts use them."""

import json
import subprocess
import sys

import pytest

from exmem import ExemplarMemory
from tests.exemplars import exemplar, folder_bytes, schema


def run(*arguments):
    script = "from exmem.cli.main import main; main()"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path):
    with ExemplarMemory.create(tmp_path / "m", schema=schema("lossless"), max_bytes="200kB", durable=False) as memory:
        memory.add([exemplar(seed, label=seed % 2, kept=4) for seed in range(12)])
    return tmp_path / "m"


def test_damage_is_told_with_exit_codes_and_repaired(folder):
    whole = run("check", folder, "--json")
    assert (whole.returncode, json.loads(whole.stdout)) == (0, {"damage": []})
    shard = sorted(folder.glob("e*/image/c.*"))[0]
    data = bytearray(shard.read_bytes())
    data[7] ^= 4
    shard.write_bytes(bytes(data))
    damaged = run("check", folder)
    assert damaged.returncode == 3
    assert "e0/image/c.0.0.0.0.0: exemplar 0: " in damaged.stdout
    repaired = run("repair", folder, "--json")
    assert repaired.returncode == 0, repaired.stderr
    assert json.loads(repaired.stdout)["dropped"] == [0]
    assert run("check", folder).returncode == 0
    (folder / "zarr.json").write_text("{}")
    broken = run("check", folder)
    assert broken.returncode == 1
    assert broken.stderr.startswith("exmem: ")


def test_a_repair_tells_how_many_exemplars_a_lost_catalog_may_have_named(tmp_path):
    folder = tmp_path / "m"
    with ExemplarMemory.create(folder, schema=schema(), max_bytes="2MB", durable=False) as memory:
        memory.add([exemplar(seed) for seed in range(12)])
        memory.commit()
        memory.evict([0, 7])
    chunks = [*folder.glob("e*/catalog/c.*")]
    for chunk in chunks:
        chunk.unlink()
    rows = json.loads((folder / "state" / "zarr.json").read_text())["attributes"]["exmem"]["eras"]["0"]
    most = rows["rows"] * (len(chunks) - 1) + rows["open_rows"] - 2
    assert 10 <= most < 20
    assert "which exemplars it names, at most " in run("check", folder).stdout
    repaired = run("repair", folder)
    assert repaired.returncode == 0, repaired.stderr
    assert f"lost with the catalog: at most {most} exemplars, which ones cannot be told\n" in repaired.stdout
    assert len(ExemplarMemory.open(folder)) == 0


def test_a_memory_is_exported_imported_and_compacted(tmp_path, folder):
    told = json.loads(run("export", folder, tmp_path / "out", "--json").stdout)
    assert told["exemplars"] == 12
    told = json.loads(run("import", tmp_path / "out", tmp_path / "again", "--max-bytes", "150kB", "--json").stdout)
    assert (told["exemplars"], told["max_bytes"]) == (12, 150_000)
    told = json.loads(run("compact", tmp_path / "again", "--json").stdout)
    assert told["after_bytes"] == folder_bytes(tmp_path / "again")
    again = run("export", folder, tmp_path / "out")
    assert again.returncode == 1
    assert "not empty" in again.stderr


def test_an_export_that_cannot_be_made_is_one_line_and_leaves_nothing(tmp_path, folder):
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "out", tmp_path / ("x" * 300)):
        failed = run("export", folder, place)
        assert (failed.returncode, failed.stdout) == (1, "")
        assert failed.stderr.startswith("exmem: ")
        assert failed.stderr.count("\n") == 1
    shard = sorted(folder.glob("e*/image/c.*"))[0]
    data = bytearray(shard.read_bytes())
    data[7] ^= 4
    shard.write_bytes(bytes(data))
    failed = run("export", folder, tmp_path / "out")
    assert failed.returncode == 1
    assert "damaged exemplars (1): [0]; nothing was exported" in failed.stderr
    assert not (tmp_path / "out").exists()


def test_a_run_is_taken_for_its_memory(tmp_path, folder):
    pytest.importorskip("filelock")  # what only reads a run needs none
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    (run_folder / "run.json").write_text(json.dumps({"config": {}, "data": {}}))
    folder.rename(run_folder / "memory")
    for command in (["check"], ["repair"], ["compact"], ["export", tmp_path / "out"]):
        told = run(command[0], run_folder, *command[1:])
        assert told.returncode == 0, told.stderr
    assert run("check", run_folder, "--json").stdout == run("check", run_folder / "memory", "--json").stdout
    assert (tmp_path / "out").is_dir()


def test_the_config_of_another_program_makes_a_memory_no_run(folder):
    (folder.parent / "run.json").write_text("{}")
    assert run("check", folder).returncode == 0
    assert run("check", folder.parent).returncode == 1
