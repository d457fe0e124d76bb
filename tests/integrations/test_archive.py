"""Files in one piece."""

import io
import json
import zlib
from pathlib import Path

import pytest

from exmem.errors import DataError
from exmem.integrations.samples.archive import read_files, write_files


def packed(index: object, data: bytes = b"") -> io.BytesIO:
    names = zlib.compress(json.dumps(index).encode())
    return io.BytesIO(b"exmem files 1\n" + len(names).to_bytes(8, "little") + names + data)


def test_files_come_back_byte_for_byte_below_another_folder(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "deep" / "er").mkdir(parents=True)
    contents = {"a": b"", "deep/b": b"12", "deep/er/c": bytes(1000)}
    for name, content in contents.items():
        (root / name).write_bytes(content)
    with io.BytesIO() as file:
        write_files(file, root, [root / name for name in contents])
        data = file.getvalue()
    read_files(io.BytesIO(data), tmp_path / "new")
    assert {name: (tmp_path / "new" / name).read_bytes() for name in contents} == contents
    for end in range(len(data)):
        with pytest.raises(DataError):
            read_files(io.BytesIO(data[:end]), tmp_path / f"cut{end}")


@pytest.mark.parametrize(
    "index",
    [[["../a", 1]], [["/a", 1]], [["a/../../b", 1]], [["", 1]], [["a", -1]], [["a", 1.0]], [["a"]], [3], {"a": 1}, 3],
)
def test_names_outside_the_folder_and_what_is_no_index_are_refused(tmp_path: Path, index: object) -> None:
    with pytest.raises(DataError):
        read_files(packed(index, b"1"), tmp_path / "new")
    assert not (tmp_path / "a").exists()


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        read_files(packed([["a", 1], ["a", 1]], b"12"), tmp_path / "new")
