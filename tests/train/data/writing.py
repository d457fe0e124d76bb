"""Small replicas of data in the forms that people have it in."""

import csv
import json
import pickle
from pathlib import Path

import numpy as np
from PIL import Image

from tests.exemplars import crop

__all__ = [
    "image",
    "image_bytes",
    "write_cifar100",
    "write_csv",
    "write_cub",
    "write_food101",
    "write_imagenet_r",
    "write_tables",
]

SPLITS = ("train", "test")


def image(path, seed=0, side=16):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(crop(seed, side)).save(path)
    return path


def image_bytes(tmp_path, seed=0, side=16):
    path = image(tmp_path / "bytes" / f"{seed}-{side}.png", seed, side)
    return path.read_bytes()


def write_csv(path, rows, header=("file_name", "text", "label")):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([header, *rows] if header else rows)
    return path


def write_tables(root, count=4, header=("file_name", "text", "label")):
    """train.csv and test.csv whose rows name images in images/, two classes in turn."""
    for split in SPLITS:
        rows = []
        for row in range(count):
            image(root / "images" / f"{split}{row}.png", row)
            rows.append((f"images/{split}{row}.png", f"{split} text {row}", "cat" if row % 2 else "dog"))
        write_csv(root / f"{split}.csv", rows, header)
    return root


def write_food101(root, classes=("apple_pie", "waffles")):
    for number, split in enumerate(SPLITS):
        rows = []
        for label in classes:
            for at in range(2):
                name = f"{label}_{at + 10 * number}.jpg"
                image(root / "images" / split / label / name, at)
                rows.append((name, f'{label.title()} recipe, "best"\nof {at}', label))
        write_csv(root / "texts" / f"{split}_titles.csv", rows, None)
    return root


def write_imagenet_r(root, classes=(("n01443537", "goldfish"), ("n02099601", "golden_retriever")), count=10, folder=""):
    for wnid, _ in classes:
        for at in range(count):
            image(root / folder / wnid / f"art_{at}.jpg", at)
    lines = [
        "ImageNet-R(endition)",
        "",
        "This is a readme of n classes.",
        *(f"{wnid} {name}" for wnid, name in classes),
    ]
    (root / "README.txt").write_text("\n".join(lines) + "\n")
    return root


def captions(root, images):
    rows = [{"file_name": Path(path).relative_to(root).as_posix(), "text": f"a drawing {n}"} for n, path in images]
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def cifar_values():
    rng = np.random.default_rng(0)
    return {split: (rng.integers(0, 256, (6, 3072), np.uint8), [0, 1, 2, 0, 1, 2]) for split in SPLITS}


def write_cifar100(root, form="python"):
    names, folder = ["apple", "bee", "cloud"], root / f"cifar-100-{form}"
    folder.mkdir(parents=True)
    for split, (pixels, labels) in cifar_values().items():
        if form == "binary":
            rows = [bytes([9, label]) + row.tobytes() for row, label in zip(pixels, labels, strict=True)]
            (folder / f"{split}.bin").write_bytes(b"".join(rows))
            continue
        held = {"filenames": ["a.png"] * 6, "fine_labels": labels, "coarse_labels": [9] * 6, "data": pixels}
        (folder / split).write_bytes(pickle.dumps(held, protocol=2))
    if form == "binary":
        (folder / "fine_label_names.txt").write_text("\n".join(names) + "\n\n")
    else:
        (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": names}, protocol=2))
    return root


def write_cub(root, *, texts=True):
    folder = root / "CUB_200_2011"
    lists = {"images": [], "image_class_labels": [], "train_test_split": [], "classes": []}
    number = 0
    for label, name in enumerate(("001.Black_footed_Albatross", "002.Laysan_Albatross"), 1):
        lists["classes"].append(f"{label} {name}")
        for at in range(4):
            number += 1
            file = f"{name}/Bird_{number:04d}_{at}.jpg"
            image(folder / "images" / file, number)
            lists["images"].append(f"{number} {file}")
            lists["image_class_labels"].append(f"{number} {label}")
            lists["train_test_split"].append(f"{number} {int(at < 3)}")
            if texts:
                path = (root / "text_c10" / file).with_suffix(".txt")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"bird {number} is black\n\nbird {number} has a beak\n")
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root
