"""`exmem caption`: texts into metadata, by tiny models; killed at any moment, it goes on where it was."""

import csv
import io
import json
import os
import shutil
import signal
import time

import numpy as np
import pytest
from PIL import Image

from exmem.errors import DataError, LockedError
from exmem.train.captioner import PROMPT, Captioner
from exmem.train.data import load_data
from exmem.train.data.captions import CaptionFolder
from exmem.train.data.images import read_image
from tests.cli.captioners import KINDS, write_captioner
from tests.cli.running import fork_command, outcome

NAMES = ["a b (1).png", "Größe [2].png", "plain.png", "#%20?.png", "{x}.png"]


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return write_captioner("blip", tmp_path_factory.mktemp("captioner") / "blip")


@pytest.fixture
def run(monkeypatch, capsys, model):
    def command(*words, of=model):
        return outcome(["caption", *words, "--model", of, "--max-new-tokens", 5], monkeypatch, capsys)

    return command


@pytest.fixture
def asked(monkeypatch):
    """How many images a model was shown, each time."""
    counts, describe = [], Captioner.__call__
    monkeypatch.setattr(
        Captioner, "__call__", lambda self, images: counts.append(len(images)) or describe(self, images)
    )
    return counts


def write_images(folder, names=NAMES, seed=0):
    rng = np.random.default_rng(seed)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture
def classes(tmp_path):
    """Folders of classes, in train/ and test/."""
    for split, seed in (("train", 0), ("test", 1)):
        write_images(
            tmp_path / "data" / split, [f"{label}/{name}" for label in ("cat", "hün d") for name in NAMES], seed
        )
    return tmp_path / "data"


def rows_of(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_folders_of_classes_become_an_imagefolder_with_texts_and_labels(classes, run, model, asked):
    before = files_below(classes)
    code, out, _ = run(classes, "--batch", "4")
    assert code == 0
    assert out == "".join(f"{classes}/{split}/metadata.jsonl: 10 texts were written\n" for split in ("train", "test"))
    assert asked == [4, 4, 2, 4, 4, 2]
    assert files_below(classes) == sorted([*before, "test/metadata.jsonl", "train/metadata.jsonl"])
    describe = Captioner(model, max_new_tokens=5)
    train, test = load_data(classes)
    assert (train.class_names, len(train), len(test)) == (("cat", "hün d"), 10, 10)
    for name, text in zip(train.ids, train.texts, strict=True):
        assert text == describe([read_image(classes / name, 32)])[0]
    assert len({*train.texts}) > 1
    assert [row["label"] for row in rows_of(classes / "train" / "metadata.jsonl")] == ["cat"] * 5 + ["hün d"] * 5


def test_a_second_run_asks_no_model_and_changes_nothing(classes, run, asked):
    assert run(classes)[0] == 0
    written = {split: (classes / split / "metadata.jsonl").read_bytes() for split in ("train", "test")}
    asked.clear()
    code, out, err = run(classes, of="no-such-model")
    assert (code, asked, err) == (0, [], "")
    assert "train/metadata.jsonl: 0 texts were written" in out
    for split, content in written.items():
        assert (classes / split / "metadata.jsonl").read_bytes() == content


def test_a_folder_without_splits_gets_metadata_at_its_root(tmp_path, run):
    folder = write_images(tmp_path / "own", ["cat/a.png", "loose.png"])
    assert run(folder)[0] == 0
    second, first = rows_of(folder / "metadata.jsonl")
    assert (first["file_name"], first["label"]) == ("cat/a.png", "cat")
    assert set(second) == {"file_name", "text"}, "of no class"


def test_only_texts_that_lack_are_written_and_other_lines_stay_as_they_are_to_the_byte(tmp_path, run, asked):
    folder = write_images(tmp_path / "own")
    lines = [
        '{"text": "mine",  "file_name": "a b (1).png", "label": 1.50}\r',
        '{"file_name": "Größe [2].png", "text": " ", "label": "ü", "more": [1, null]}\r',
        "",
        '{"file_name": "plain.png", "label": "c"}',
        '{"file_name": "plain.png", "label": "d", "text": null}',
    ]
    (folder / "metadata.jsonl").write_bytes(("\ufeff" + "\n".join(lines)).encode())
    code, out, _ = run(folder)
    assert (code, asked) == (0, [2])
    assert "warning: 2 images have no row in" in out
    written = (folder / "metadata.jsonl").read_bytes().decode()
    assert written.startswith("\ufeff" + lines[0] + "\n")
    rows = [json.loads(line) for line in written[1:].split("\n") if line]
    assert rows[1] == {"file_name": "Größe [2].png", "text": rows[1]["text"], "label": "ü", "more": [1, None]}
    assert rows[1]["text"].strip()
    assert written.split("\n")[1].endswith("\r")
    assert rows[2]["text"] == rows[3]["text"]
    assert "Größe" in written


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_csv_stays_one_with_its_separator_its_cells_and_its_lines(tmp_path, run, separator, newline):
    folder = write_images(tmp_path / "own")
    header, *rows = [
        ["file_name", "label", "note"],
        ["plain.png", 'say "hi"', f"two{newline}lines{separator} and more"],
        ["", "", ""],
        ["Größe [2].png", "01"],
    ]
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=separator, lineterminator=newline).writerows([header, *rows])
    (folder / "metadata.csv").write_bytes(out.getvalue().encode())
    assert run(folder)[0] == 0
    content = (folder / "metadata.csv").read_bytes().decode()
    read = list(csv.reader(io.StringIO(content, newline=""), delimiter=separator))
    assert read[0] == [*header, "text"]
    assert [row[:3] for row in read[1:]] == [rows[0], rows[1], ["Größe [2].png", "01", ""]]
    assert all(read[at][3].strip() for at in (1, 3))
    assert content.count("\r\n") == (content.count("\n") if newline == "\r\n" else 0)


def test_a_column_of_a_csv_is_filled_where_it_is_empty_and_overwritten_when_that_is_asked(tmp_path, run, asked):
    folder = write_images(tmp_path / "own")
    (folder / "metadata.csv").write_text("file_name,caption,label\nplain.png,mine,a\n{x}.png,,b\n")
    assert run(folder, "--data.text-column", "caption")[0] == 0
    first, second = csv.DictReader(io.StringIO((folder / "metadata.csv").read_text()))
    assert (first["caption"], asked) == ("mine", [1])
    assert run(folder, "--data.text-column", "caption", "--overwrite")[0] == 0
    again = [*csv.DictReader(io.StringIO((folder / "metadata.csv").read_text()))]
    assert asked == [1, 2]
    assert again[0]["caption"] not in {"mine", ""}
    assert again[1] == second


def test_broken_images_are_listed_and_the_others_get_texts(classes, run, asked):
    train = classes / "train" / "cat"
    (train / "plain.png").write_bytes(b"no image")
    (train / "{x}.png").write_bytes(b"")
    (train / NAMES[0]).write_bytes((train / NAMES[0]).read_bytes()[:60])
    code, out, _ = run(classes)
    broken = [line for line in out.splitlines() if line.startswith("broken: ")]
    assert code == 1
    assert out.splitlines()[-1] == "3 broken"
    assert [line.split(": ")[1] for line in broken] == [
        str(train / name) for name in ("{x}.png", "a b (1).png", "plain.png")
    ]
    texts = {row["file_name"]: row["text"] for row in rows_of(classes / "train" / "metadata.jsonl")}
    assert sorted(name for name, text in texts.items() if not text) == sorted(
        f"cat/{name}" for name in ("{x}.png", "a b (1).png", "plain.png")
    )
    write_images(train, ["plain.png"])
    asked.clear()
    code, out, _ = run(classes)
    assert (code, asked, out.splitlines()[-1]) == (1, [1], "2 broken")
    texts = {row["file_name"]: row["text"] for row in rows_of(classes / "train" / "metadata.jsonl")}
    assert texts["cat/plain.png"]


def test_an_image_that_a_row_names_and_that_is_missing_is_broken(tmp_path, run):
    folder = write_images(tmp_path / "own", ["a.png"])
    (folder / "metadata.jsonl").write_text(
        '{"file_name": "a.png"}\n{"file_name": "b.png"}\n{"file_name": "../c.png"}\n'
    )
    code, out, _ = run(folder)
    assert code == 1
    assert f"broken: {folder / 'metadata.jsonl'} line 3: expected the name of a file in {folder}" in out
    assert f"broken: {folder / 'b.png'}: no such image" in out
    assert [bool(row["text"]) for row in rows_of(folder / "metadata.jsonl")] == [True, False, False]


def test_images_are_turned_and_shown_on_white_before_a_model_sees_them(tmp_path, monkeypatch, run):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "own").mkdir()
    Image.new("RGB", (20, 10), (9, 9, 9)).save(tmp_path / "own" / "a.png", exif=exif)
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "own" / "b.png")
    Image.new("L", (8, 8), 7).save(tmp_path / "own" / "c.png")
    seen = []
    monkeypatch.setattr(Captioner, "__call__", lambda self, images: seen.extend(images) or ["text"] * len(images))
    assert run(tmp_path / "own")[0] == 0
    assert [(image.mode, image.size) for image in seen] == [("RGB", (10, 20)), ("RGB", (8, 8)), ("RGB", (8, 8))]
    assert [image.getpixel((0, 0)) for image in seen] == [(9, 9, 9), (255, 255, 255), (7, 7, 7)]


@pytest.mark.kills
@pytest.mark.slow
def test_a_killed_command_goes_on_and_writes_what_it_would_have_written(tmp_path, model, run, asked):
    names = [f"cat/{number}.png" for number in range(40)]
    for name in ("whole", "cut"):
        write_images(tmp_path / name / "train", names)
    assert run(tmp_path / "whole", "--batch", "2")[0] == 0
    side, done = tmp_path / "cut" / "train" / ".captions.jsonl", 0
    words = ["caption", str(tmp_path / "cut"), "--model", str(model), "--max-new-tokens", "5", "--batch", "2"]
    for _ in range(2):
        process = fork_command(words, {"OMP_NUM_THREADS": "1"}, tmp_path / "said")
        while not side.exists() or len(side.read_bytes().splitlines()) < done + 4:
            assert process.is_alive(), (tmp_path / "said").read_text()
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert not (tmp_path / "cut" / "train" / "metadata.jsonl").exists()
        done = len(side.read_bytes().splitlines()) - 1
        assert 0 < done < 40
    with side.open("a") as file:
        file.write('{"file_name": "cat/39.png", "te')  # what a power cut may leave
    asked.clear()
    code, out, _ = run(tmp_path / "cut", "--batch", "2")
    assert (code, sum(asked)) == (0, 40 - done)
    assert f"40 texts were written ({done} of them before)" in out
    assert rows_of(tmp_path / "cut" / "train" / "metadata.jsonl") == rows_of(
        tmp_path / "whole" / "train" / "metadata.jsonl"
    )
    assert not side.exists()


def test_an_interrupt_loses_no_text_and_other_settings_are_refused_until_all_are_written(tmp_path, run, monkeypatch):
    folder = write_images(tmp_path / "own")
    with monkeypatch.context() as patch:
        describe = Captioner.__call__

        def once(self, images, asked=[]):  # noqa: B006
            asked.append(1)
            if len(asked) > 1:
                raise KeyboardInterrupt
            return describe(self, images)

        patch.setattr(Captioner, "__call__", once)
        code, _, err = run(folder, "--batch", "2")
    assert (code, err.splitlines()[-1]) == (130, "exmem: interrupted; run the same command again to continue")
    assert not (folder / "metadata.jsonl").exists()
    code, _, err = run(folder, "--prompt", "red")
    assert code == 1
    assert "captions were begun here with {'model':" in err
    assert run(folder)[1].endswith("5 texts were written (2 of them before)\n")


@pytest.mark.parametrize("moment", ["replace", "unlink"])
def test_a_kill_while_metadata_are_put_in_place_leaves_old_or_new_ones(tmp_path, run, monkeypatch, asked, moment):
    folder = write_images(tmp_path / "own")
    file, old = folder / "metadata.jsonl", '{"file_name": "plain.png", "label": "a"}\n'
    file.write_text(old)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"exmem.train.data.captions.Path.{moment}", killed)
        assert run(folder)[0] == 130
    assert (file.read_text() == old) == (moment == "replace")
    asked.clear()
    assert run(folder)[0] == 0
    assert asked == []
    assert rows_of(file)[0]["text"]
    assert files_below(folder) == sorted([*NAMES, "metadata.jsonl"])


def test_metadata_behind_a_link_are_written_where_they_are_and_keep_their_mode(tmp_path, run):
    folder = write_images(tmp_path / "own")
    real = tmp_path / "elsewhere.jsonl"
    real.write_text('{"file_name": "plain.png", "label": "a"}\n')
    real.chmod(0o640)
    (folder / "metadata.jsonl").symlink_to(real)
    assert run(folder)[0] == 0
    assert rows_of(real)[0]["text"]
    assert real.stat().st_mode & 0o777 == 0o640
    assert (folder / "metadata.jsonl").is_symlink()


def test_a_folder_is_captioned_by_one_process_at_a_time(tmp_path, run):
    folder = write_images(tmp_path / "own")
    columns = {"text_column": "text", "label_column": "label", "overwrite": False}
    with (
        CaptionFolder.opened(folder, {}, **columns),
        pytest.raises(LockedError, match="another process writes captions here"),
        CaptionFolder.opened(folder, {}, **columns),
    ):
        pass
    assert files_below(folder) == sorted(NAMES), "nothing was written, nothing is left"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ("{folder}/none", 1, "expected a folder of images, got nothing there"),
        ("{folder}/plain.png", 1, "expected a folder of images, got a file"),
        ("{folder} --batch 0", 2, "--batch must be an integer of 1"),
        ("{folder} --device tpu9", 2, "--device: expected auto, or one such as cpu or cuda, got 'tpu9'"),
        ("{folder} --data.text-column label", 2, "expected two beside file_name, got 'label' and 'label'"),
        ("{folder} --dtype float8", 2, "--dtype: expected one of 'auto', 'float32', 'float16', 'bfloat16'"),
    ],
)
def test_what_is_asked_wrongly_is_told_in_one_line_and_leaves_nothing_behind(tmp_path, run, words, code, told):
    folder = write_images(tmp_path / "own")
    ended, _, err = run(*words.format(folder=folder).split())
    assert (ended, told in err, "Traceback" in err) == (code, True, False), err
    assert files_below(folder) == sorted(NAMES)


@pytest.mark.parametrize("which", ["none", "vit"])
def test_a_model_that_makes_no_text_is_refused(tmp_path, run, which):
    from transformers import ViTConfig

    folder = write_images(tmp_path / "own")
    if which == "vit":
        ViTConfig().save_pretrained(tmp_path / "vit")
    code, _, err = run(folder, of=tmp_path / which)
    assert code == 1
    assert ("expected a model that makes text of images, got 'vit'" if which == "vit" else "expected a hub name") in err
    assert files_below(folder) == sorted(NAMES)


def test_tables_that_cannot_be_read_are_refused_before_a_model_is_loaded(tmp_path, run):
    folder = write_images(tmp_path / "own")
    (folder / "metadata.jsonl").write_text('{"file_name": "plain.png"}\n{nonsense\n')
    code, _, err = run(folder, of="no-such-model")
    assert code == 1
    assert "metadata.jsonl line 2: expected one JSON object" in err
    (folder / "metadata.csv").write_text("file_name\nplain.png\n")
    assert "there are metadata.jsonl and metadata.csv; keep the one" in run(folder, of="no-such-model")[2]
    (folder / "metadata.csv").unlink()
    (folder / "metadata.jsonl").rename(folder / "kept")
    (folder / "cat").mkdir()
    shutil.copy(folder / "kept", folder / "cat" / "metadata.jsonl")
    assert "metadata belongs in" in run(folder, of="no-such-model")[2]


@pytest.mark.parametrize("prompt", [None, "the red roof"], ids=["unasked", "asked"])
@pytest.mark.parametrize("kind", KINDS)
def test_models_of_every_kind_describe_alike_alone_and_together_and_repeat_no_prompt(
    tmp_path, tmp_path_factory, kind, prompt
):
    folder = tmp_path_factory.getbasetemp() / "captioners" / kind
    if not folder.exists():
        write_captioner(kind, folder)
    if kind == "towers" and prompt is not None:
        with pytest.raises(ValueError, match="takes none; leave it out"):
            Captioner(folder, prompt=prompt)
        return
    describe = Captioner(folder, prompt=prompt, max_new_tokens=6)
    assert describe.prompt == (prompt or (PROMPT if kind in {"instructed", "chatting"} else None))
    write_images(tmp_path, ["a.png", "b.png", "c.png"])
    images = [read_image(tmp_path / f"{name}.png", 64) for name in "abc"]
    texts = describe(images)
    assert texts == [describe([image])[0] for image in images] == describe(images)
    assert any(texts)
    for text in texts:
        assert len(text.split()) <= 6
        assert not text.startswith((prompt or PROMPT).split(".")[0].lower())
        assert not {"[", "<"} & {*text}


@pytest.mark.parametrize("kind", KINDS)
def test_models_of_every_kind_describe_in_sixteen_bits(tmp_path, tmp_path_factory, kind):
    folder = tmp_path_factory.getbasetemp() / "captioners" / kind
    if not folder.exists():
        write_captioner(kind, folder)
    write_images(tmp_path, ["a.png", "b.png"])
    texts = Captioner(folder, max_new_tokens=3, dtype="bfloat16")(
        [read_image(tmp_path / f"{name}.png", 64) for name in "ab"]
    )
    assert len(texts) == 2


def test_a_batch_that_is_too_large_for_the_device_is_told(tmp_path, run, monkeypatch):
    import torch

    def generate(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("transformers.BlipForConditionalGeneration.generate", generate)
    code, _, err = run(write_images(tmp_path / "own"))
    assert (code, "5 images at a time are too many for cpu; lower --batch" in err) == (1, True)


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path, monkeypatch):
    folder = write_images(tmp_path / "own")

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("exmem.train.data.captions.Path.open", refused)
    with (
        pytest.raises(DataError, match="cannot be written to"),
        CaptionFolder.opened(folder, {}, text_column="text", label_column="label", overwrite=False),
    ):
        pass
