"""Files in one piece."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from exmem.errors import DataError
from exmem.integrations.samples.archive import read_files, write_files

CONTENTS = {"a": b"", "deep/b": b"12", "deep/er/c": bytes(1000)}


def packed(*entries: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", compression) as archive:
            for name, content in entries:
                archive.writestr(name, content)
        return file.getvalue()


def written(root: Path) -> bytes:
    for name, content in CONTENTS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    with io.BytesIO() as file:
        write_files(file, root, [root / name for name in CONTENTS])
        return file.getvalue()


def test_files_come_back_byte_for_byte_below_another_folder(tmp_path: Path) -> None:
    read_files(io.BytesIO(written(tmp_path / "root")), tmp_path / "new")
    assert {name: (tmp_path / "new" / name).read_bytes() for name in CONTENTS} == CONTENTS


def test_the_same_files_are_the_same_bytes_whenever_they_were_written(tmp_path: Path) -> None:
    first = written(tmp_path / "one")
    written(tmp_path / "two")
    for name in CONTENTS:
        os.utime(tmp_path / "two" / name, (1, 1))  # before the first time that a zip file can tell
    with io.BytesIO() as file:
        write_files(file, tmp_path / "two", [tmp_path / "two" / name for name in CONTENTS])
        assert file.getvalue() == first


def test_what_was_cut_off_or_changed_is_refused_and_no_other_error_is_raised(tmp_path: Path) -> None:
    data = written(tmp_path / "root")
    for end in range(0, len(data), 7):
        with pytest.raises(DataError):
            read_files(io.BytesIO(data[:end]), tmp_path / f"cut{end}")
    generator, refused = np.random.default_rng(0), 0
    for number in range(300):
        changed = bytearray(data)
        changed[generator.integers(len(data))] ^= 1 << generator.integers(8)
        try:
            read_files(io.BytesIO(bytes(changed)), tmp_path / f"changed{number}")
        except DataError:
            refused += 1
    assert refused > 200, "contents have checksums; some fields of a zip file are not looked at"


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", "a/../b"])
def test_names_outside_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="none below a folder"):
        read_files(io.BytesIO(packed((name, b"1"))), tmp_path / "deep" / "new")
    assert not list(tmp_path.rglob("*"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_come_twice_or_are_a_folder_too_and_what_is_compressed_are_refused(tmp_path: Path) -> None:
    for number, data in enumerate(
        [
            packed(("a", b"1"), ("a", b"2")),
            packed(("a", b"1"), ("a/b", b"2")),
            packed(("a", bytes(10**6)), compression=zipfile.ZIP_DEFLATED),
            packed(("n" * 5000, b"1")),
            b"",
            b"no files",
        ]
    ):
        with pytest.raises(DataError):
            read_files(io.BytesIO(data), tmp_path / str(number))
