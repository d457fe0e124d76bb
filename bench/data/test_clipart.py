"""Clip art: the choice of classes, what becomes of people's notes, and the split, on a library made here."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from bench.data.clipart import Limits, build_clipart, choose_classes, draw_clipart, family, on_white, split, summary
from bench.data.clipart_texts import Note, class_words, describe, read_note, without_collections
from bench.data.debian import Package, fetch_package, unpack
from exmem.errors import DataError
from exmem.train.data import load_data

SVG = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:x="http://www.w3.org/1999/xlink"><metadata>
<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:d="http://purl.org/dc/elements/1.1/">
<Work xmlns="http://web.resource.org/cc/"><d:title> {title} </d:title><d:subject><r:Bag>{keywords}</r:Bag></d:subject>
<d:publisher><Agent><d:title>Library</d:title></Agent></d:publisher>
<d:creator><Agent><d:title>Ann Owl</d:title></Agent></d:creator></Work></r:RDF></metadata>{inside}</svg>"""


def svg(title="", keywords=(), inside=""):
    return SVG.format(
        title=title, keywords="".join(f"<r:li>{word}</r:li>" for word in keywords), inside=inside
    ).encode()


def digests(**folders):
    """Digests of pictures by path; a folder is given by its name with `__` for `/` and its pictures' contents."""
    return {
        f"{folder.replace('__', '/')}/{number}": digest
        for folder, contents in folders.items()
        for number, digest in enumerate(contents)
    }


def test_the_deepest_folder_that_is_large_enough_is_the_class():
    chosen = choose_classes(digests(animals="ab", animals__birds="cde", animals__fish="f", food="ghi"), min_images=3)
    assert chosen == {
        "animals-birds": [f"animals/birds/{n}" for n in range(3)],
        "food": [f"food/{n}" for n in range(3)],
    }
    together = choose_classes(digests(food="g", food__fruit__red="hi"), min_images=3)
    assert together == {"food": ["food/0", "food/fruit/red/0", "food/fruit/red/1"]}


def test_the_same_bytes_count_once_and_those_of_two_classes_not_at_all():
    assert choose_classes(digests(food="aab"), min_images=3) == {}
    assert choose_classes(digests(food="aabc"), min_images=3) == {"food": ["food/0", "food/2", "food/3"]}
    assert choose_classes(digests(food="abcd", tools="dxyz"), min_images=3) == {
        "food": ["food/0", "food/1", "food/2"],
        "tools": ["tools/1", "tools/2", "tools/3"],
    }
    assert list(choose_classes(digests(food="abc", tools="cxyz"), min_images=3)) == ["tools"]


def test_folders_that_are_no_classes_do_not_count_for_what_they_lie_in():
    assert choose_classes(digests(computer="ab", computer__icons="cdef", unsorted="ghi"), min_images=3) == {}


def test_notes_are_read_without_publishers_and_blanks():
    note = read_note(svg("Red  bird", ["bird", " ", "sky"]))
    assert note == Note("Red  bird", ("bird", "sky"), ("Ann Owl",), incomplete=False)
    assert read_note(b"<svg/>") == Note("", (), ())
    assert read_note(svg(inside='<image x:href="file:///home/ann/a.png"/>')).incomplete
    assert not read_note(svg(inside='<image x:href="data:image/png;base64,AA"/>')).incomplete


def test_what_gives_a_class_away_is_not_in_its_texts():
    notes = {
        "aiga_1": Note("Gull", ("bird", "insignia"), ()),
        "aiga_2": Note("wren 2", ("Birds", "insignia"), ()),
        "3": Note("", ("sea",), ()),
    }
    barred = class_words("animals-birds", notes)
    assert barred == {"aiga", "animal", "bird", "insignia"}
    assert [describe(note, "", barred)[0] for note in notes.values()] == ["gull", "wren", "sea"]


def test_where_title_and_keywords_say_nothing_the_name_of_the_file_does_without_its_author():
    note = Note("Owl", ("bird", "bird"), ("Ann Owl",))
    assert describe(note, "sea_gull_ann_01", {"bird"}) == ("sea gull", True)
    assert describe(note, "bird_07", {"bird"}) == ("", True)


def test_a_title_of_ten_drawings_is_that_of_a_collection():
    notes = {str(number): Note("Homes", ("tent",), ()) for number in range(10)} | {"x": Note("Hut", (), ())}
    assert {note.title for note in without_collections(notes).values()} == {"", "Hut"}
    del notes["0"]
    assert without_collections(notes) == notes


def test_a_split_keeps_colours_of_one_drawing_together_and_its_limits():
    keys = [f"a/{number}_{colour}" for number in range(10) for colour in ("red", "blue")]
    parts = split(keys, "a", Limits())
    assert len(parts["test"]) == 4  # a quarter of 20 is 5, and pairs stay together
    assert sorted(parts["train"] + parts["test"]) == sorted(keys)
    assert not {family(key) for key in parts["train"]} & {family(key) for key in parts["test"]}
    small = split(keys, "a", Limits(max_train=3, max_test=2))
    assert (len(small["train"]), len(small["test"])) == (3, 2)
    assert split(reversed(keys), "a", Limits()) == parts
    assert split(keys, "a", Limits(seed=1)) != parts


def test_a_picture_is_whole_in_the_middle_of_a_white_square(tmp_path):
    Image.new("RGBA", (40, 20), (255, 0, 0, 255)).save(tmp_path / "wide.png")
    square = on_white(tmp_path / "wide.png", 8)
    assert (square[2:6] == (255, 0, 0)).all()
    assert (square[[0, 1, 6, 7]] == 255).all()
    Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (on_white(tmp_path / "clear.png", 8) == 255).all()


def library(folder):
    """Two folders of twelve pictures, of which some are of no use."""
    for number in range(24):
        name = f"{'food' if number < 12 else 'tools'}/thing_{number}"
        for kind in ("png", "svg"):
            (folder / kind / name).parent.mkdir(parents=True, exist_ok=True)
        left_out = {0: (0, 0, 0, 0), 1: (9, 9, 9, 255), 2: (9, 9, 9, 255)}  # clear, and two that are drawn the same
        colour = left_out.get(number, (10 * number, 0, 99, 255))
        Image.new("RGBA", (30, 20 + 20 * (number == 1)), colour).crop((0, 0, 30, 20)).save(
            folder / "png" / f"{name}.png", compress_level=number % 9
        )
        inside = '<image x:href="gone.png"/>' if number == 3 else ""
        (folder / "svg" / f"{name}.svg").write_bytes(svg(f"kind {number}", ["made"], inside))
    return folder


def test_a_library_becomes_data_that_can_be_loaded_the_same_each_time(tmp_path):
    source = library(tmp_path / "library")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        draw_clipart(tmp_path / name, source, Limits(size=16, min_images=11, max_train=5))
    train, test = load_data(tmp_path / "one")
    assert train.class_names == ("food", "tools")
    assert (len(train), len(test)) == (10, 5)  # a quarter of 9 and of 12
    assert set(train.texts) == {""}  # what all share, names too, tells nothing
    assert "1 drawn the same as another, 1 hardly anything on white, 1 shows a file" in summary(tmp_path / "one")
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 18
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)
    assert build_clipart(tmp_path / "one", Limits()) == tmp_path / "one"  # is there: nothing is fetched


def deb(folder, content):
    """A package file with one file in it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        info = tarfile.TarInfo("usr/share/x.txt")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    members = {b"debian-binary": b"2.0", b"data.tar.xz": packed.getvalue()}
    parts = [
        name.ljust(48) + str(len(data)).encode().ljust(10) + b"`\n" + data + b"\n" * (len(data) % 2)
        for name, data in members.items()
    ]
    path = folder / "x_1_all.deb"
    path.write_bytes(b"!<arch>\n" + b"".join(parts))
    return path


def test_a_package_is_unpacked(tmp_path):
    unpack(deb(tmp_path, b"content"), tmp_path / "out")
    assert (tmp_path / "out/usr/share/x.txt").read_bytes() == b"content"


def test_a_package_of_another_hash_is_refused_and_without_apt_it_says_what_to_put_where(tmp_path, monkeypatch):
    package = Package("x", "1:1", "00")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        DataError, match=r"no apt-get here; .* or put x_1_all.deb \(Debian 12, SHA-256 00\) at .*/packages/"
    ):
        fetch_package(package, cache=tmp_path)
    deb(tmp_path / "packages", b"")
    with pytest.raises(DataError, match="expected SHA-256 00, got"):
        fetch_package(package, cache=tmp_path)


def test_pixels_are_bytes(tmp_path):
    Image.new("L", (3, 300), 7).save(tmp_path / "thin.png")
    assert on_white(tmp_path / "thin.png", 16).dtype == np.uint8
