"""`exmem data`, as people and scripts use it."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from PIL import Image

OPEN = {"COLUMNS": "80"}


def run(*arguments):
    command = [sys.executable, "-c", "from exmem.cli.main import main; main()", "data", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | OPEN)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "data"
    for split, count in (("train", 4), ("test", 2)):
        (folder / split).mkdir(parents=True)
        lines = ["file_name,text,label"]
        for row in range(count):
            Image.new("RGB", (20 + row, 10), (row, 0, 0)).save(folder / split / f"{row}.png")
            lines.append(f"{row}.png,{'word ' * row},{'cat' if row % 2 else 'dog'}")
        (folder / split / "metadata.csv").write_text("\n".join(lines))
    return folder


def test_a_whole_folder_is_described_and_the_exit_code_says_so(folder):
    told = run(folder)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.splitlines()[-1] == "nothing is broken"
    assert "  texts: 2 are empty, the longest of 3 words (train/3.png)" in told.stdout
    assert "  images: sides from 10 to 23 pixels, median 10; 6 RGB" in told.stdout
    found = json.loads(run(folder, "--json", "--max-words", "1").stdout)
    assert found["classes"] == {"cat": {"train": 2, "test": 1}, "dog": {"train": 2, "test": 1}}
    assert {role: split["examples"] for role, split in found["splits"].items()} == {"train": 4, "test": 2}
    assert found["image_bytes"] == sum(path.stat().st_size for path in folder.rglob("*.png"))
    assert (found["texts"]["longest_words"], found["texts"]["longer"]) == (3, 2)
    assert (found["problems"], found["warnings"], found["notes"]) == ([], [], [])


def test_everything_that_is_broken_is_listed_with_an_exit_code_of_one(folder):
    train = folder / "train"
    (train / "0.png").unlink()
    (train / "1.png").write_bytes(b"")
    (train / "2.png").write_bytes(b"no image")
    (train / "3.png").write_bytes((train / "3.png").read_bytes()[:45])
    told = run(folder)
    assert told.returncode == 1
    broken = [line for line in told.stdout.splitlines() if line.startswith("broken: ")]
    leave, drop = "replace it or leave it out", "replace it or drop its row"
    assert broken == [
        f"broken: {train}/0.png (metadata.csv line 2): no such image; add it or drop its row",
        f"broken: {train}/1.png (metadata.csv line 3): expected an image, got an empty file; {drop}",
        f"broken: {train}/2.png: expected an image, got a file in no form that Pillow reads; {leave}",
        f"broken: {train}/3.png: expected an image, got image file is truncated; {leave}",
    ]
    assert told.stdout.splitlines()[-1] == "4 broken"
    found = run(folder, "--json")
    assert (found.returncode, [f"broken: {line}" for line in json.loads(found.stdout)["problems"]]) == (1, broken)


def test_of_many_broken_files_twenty_are_named_and_all_are_counted(folder):
    rows = "".join(f"no{row}.png,t,cat\n" for row in range(30))
    (folder / "train" / "metadata.csv").write_text("file_name,text,label\n0.png,t,dog\n1.png,t,cat\n" + rows)
    told = run(folder).stdout.splitlines()
    assert sum(line.startswith("broken: ") for line in told) == 20
    assert told[-2:] == ["... and 10 more; --json lists them all", "30 broken"]
    assert len(json.loads(run(folder, "--json").stdout)["problems"]) == 30


def test_what_is_odd_is_told_and_what_will_be_done_to_images(folder):
    train, exif = folder / "train", Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 8)).save(train / "0.png", exif=exif)
    Image.new("CMYK", (8, 8)).save(train / "1.jpg")
    Image.new("RGBA", (8, 8)).save(train / "2.png")
    Image.new("I;16", (8, 8)).save(train / "3.png")
    frames = [Image.new("L", (8, 8), grey) for grey in (0, 255)]
    frames[0].save(train / "4.gif", save_all=True, append_images=frames[1:])
    rows = ["0.png;t;dog", "1.jpg;t;dog", "2.png;t;dog", "3.png;t;cat", "4.gif;t;1.0", "4.gif;t;Cat", ";;"]
    (train / "metadata.csv").write_text("file_name;text;label\n" + "\n".join(rows))
    told = run(folder)
    assert told.returncode == 0
    for line in (
        "  1 turned as their EXIF orientation says",
        "  1 in CMYK: converted to RGB",
        "  1 transparent: shown on white",
        "  1 of 16 bits: scaled to 8",
        "  1 animated or of several pages: the first is taken",
        "4 classes of 1 to 3 examples in train",
        "told: 3 classes have one example in train ('1', 'Cat', 'cat')",
        "told: 2 classes have no example in test ('1', 'Cat')",
        f"told: {train}: metadata.csv: columns are separated by ';'",
        f"told: {train}: metadata.csv: 1 empty rows are left out",
        f"told: {train}: metadata.csv: 1 rows name an image that another row names",
        f"warning: {train}: 1 labels of metadata.csv are written as 1.0 and taken as 1",
        f"warning: {train}: 1 images have no row in metadata.csv and are left out",
        f"warning: {folder}: the classes 'Cat', 'cat' look alike and stay apart; write them alike if they are one",
    ):
        assert line in told.stdout.splitlines()


def test_folders_of_classes_are_described_without_texts(folder):
    for split, name in (("train", "train"), ("test", "val")):
        (folder / split / "metadata.csv").unlink()
        (folder / split / "a").mkdir()
        (folder / split / "0.png").rename(folder / split / "a" / "0.png")
        (folder / split).rename(folder / name)
    for path in folder.glob("*/*.png"):
        path.unlink()
    told = run(folder)
    assert told.returncode == 0, told.stdout
    assert "  test (in val/): 1 examples of 1 images" in told.stdout
    assert "  texts: none, there is no column 'text': images alone can be learnt" in told.stdout
    assert f"warning: {folder}: there is no test/, val/ is taken for it" in told.stdout


def test_other_columns_are_named_on_the_command_line(folder):
    for split in ("train", "test"):
        path = folder / split / "metadata.csv"
        path.write_text(path.read_text().replace("text,label", "caption,kind"))
    refused = run(folder)
    assert refused.returncode == 1
    assert "lacks the columns ['label'], it has ['caption', 'file_name', 'kind']; name yours with" in refused.stdout
    assert "  texts: 2 are empty" in run(folder, "--text-column", "caption", "--label-column", "kind").stdout


def test_no_line_is_wrapped_in_a_pipe(folder):
    long = folder.parent / ("long " * 30) / "data"
    long.parent.mkdir()
    shutil.copytree(folder, long)
    assert run(long).stdout.splitlines()[0].startswith(f"{long}: ")
    assert all(not line.startswith(("long", "data")) for line in run(long).stdout.splitlines())


@pytest.mark.parametrize(
    ("place", "message"), [("nowhere", "got nothing there"), ("data/train", "expected the folders")]
)
def test_what_cannot_be_read_at_all_is_one_line(folder, place, message):
    told = run(folder.parent / place)
    assert (told.returncode, told.stdout, told.stderr.count("\n")) == (1, "", 1)
    assert told.stderr.startswith("exmem: ")
    assert message in told.stderr


def test_a_table_of_texts_is_described_without_images(tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("text,label\na b,1\nc,2\nc,2\n")
    told = run(tmp_path)
    assert (told.returncode, told.stderr) == (0, "")
    lines = told.stdout.splitlines()
    assert lines[:5] == [
        str(tmp_path),
        "  train (in train.csv): 3 examples",
        "  test (in test.csv): 3 examples",
        "  texts: 0 are empty, the longest of 2 words (train/000000002)",
        "  images: none, there is no column of them: texts alone can be learnt",
    ]
    assert f"told: {tmp_path}/train.csv: train.csv: 1 rows have text and label of another row" in lines


def test_tables_are_described_with_their_images_and_what_is_broken(folder):
    table = folder / "all.csv"
    rows = [f"{split}/{row}.png,t,cat,{split}" for split, count in (("train", 4), ("test", 2)) for row in range(count)]
    table.write_text("\n".join(["photo,caption,label,fold", *rows, "no.png,t,cat,train"]))
    words = [table, "--image-column", "photo", "--text-column", "caption", "--split-column", "fold"]
    told = run(*words)
    assert told.returncode == 1
    lines = told.stdout.splitlines()
    assert "  train: 4 examples of 4 images" in told.stdout
    assert f"broken: {folder}/no.png (all.csv line 8): no such image; add it or drop its row" in lines
    found = json.loads(run(*words, "--json").stdout)
    assert (found["images"]["decoded"], found["images"]["column"], found["texts"]["column"]) == (6, True, True)


def test_a_parquet_table_with_images_inside_is_decoded_and_torch_is_not_imported(folder):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("datasets")
    images = [{"bytes": path.read_bytes(), "path": None} for path in sorted((folder / "train").glob("*.png"))]
    frame = pandas.DataFrame({"image": [*images, {"bytes": b"no image", "path": None}], "label": [1, 2, 1, 2, 1]})
    frame.iloc[:4].to_parquet(folder.parent / "train.parquet")
    frame.to_parquet(folder.parent / "test.parquet")
    script = "import sys; from exmem.cli.main import main\ntry:\n  main()\nfinally:\n  print('torch' in sys.modules)"
    command = [sys.executable, "-c", script, "data", str(folder.parent)]
    told = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | OPEN)
    assert told.returncode == 1
    lines = told.stdout.splitlines()
    assert "broken: test/000000004: expected an image, got a file in no form that Pillow reads; replace" in told.stdout
    assert any(line.startswith("  train (in train.parquet): 4 examples of 4 images, ") for line in lines)
    assert "  texts: none, there is no column 'text': images alone can be learnt" in lines
    assert lines[-1] == "False"


def test_a_layout_is_named_and_what_it_lacks_is_one_line(folder):
    told = run(folder, "--layout", "food101")
    assert (told.returncode, told.stderr.count("\n")) == (1, 1)
    assert "missing: images/train, images/test, texts/train_titles.csv, texts/test_titles.csv; found: te" in told.stderr
    told = run(folder, "--layout", "food")
    assert (told.returncode, told.stderr.count("\n")) == (2, 1)
    assert "unknown layout 'food'; choose one of ['auto'," in told.stderr


def test_the_help_names_each_value_apart():
    shown = run("--help").stdout
    for name in ("--text-column COLUMN", "--label-column COLUMN", "--max-words WORDS", " DATA"):
        assert name in shown
