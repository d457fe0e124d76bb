"""A phase of anybody's loop: what is stored of it, once, and what a plain loader replays."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from exmem import Exemplar, ExemplarMemory, Schema, TokenSet, TokenSpec
from exmem.errors import DataWarning, InvalidExemplarError, SchemaError
from exmem.integrations.huggingface import iterable_dataset
from exmem.integrations.phases import PhaseReplay
from exmem.recipes import BoundRecipe, PlainImages
from tests.integrations.learners import BOUND, EACH, as_input, flat, held, raw_examples


def replaying(memory, rows, phase, **options):
    return PhaseReplay(memory, rows, phase=phase, **{"transform": as_input, "replay": 4, **options})


def test_images_of_any_size_are_scaled_and_cut_to_the_size_of_the_memory(memory):
    wide = np.zeros((40, 96, 3), np.uint8)
    wide[:, 28:68] = 200
    rows = [
        {"image": Image.fromarray(wide), "label": 0},
        {"image": Image.fromarray(wide).convert("L"), "label": 1},
        {"image": torch.from_numpy(wide).permute(2, 0, 1), "label": 2},
        {"image": wide, "label": 3},
    ]
    PhaseReplay(memory, rows, phase=0).add()
    images = [np.asarray(row["image"]) for row in iterable_dataset(memory)]
    assert [image.shape for image in images] == [(32, 32, 3)] * 4
    assert all(abs(image.astype(int) - 200).max() < 12 for image in images), "the middle is kept"


def test_an_interrupt_while_examples_are_made_or_stored_leaves_the_phase_to_be_stored(after_one, monkeypatch):
    rows, before = raw_examples([2, 3]), held(after_one)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    replay = replaying(after_one, rows, 1)
    with monkeypatch.context() as patch:
        patch.setattr(type(BOUND), "make", interrupted)
        with pytest.raises(KeyboardInterrupt):
            replay.add()
    assert held(after_one) == before
    with monkeypatch.context() as patch:
        patch.setattr(ExemplarMemory, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            replay.add()
    assert held(after_one)[:2] == before[:2]
    assert len(replay.add()) == 2 * EACH
    assert len(replay.add()) == 0
    assert len(after_one) == 4 * EACH


def test_what_was_staged_and_discarded_beside_a_phase_is_not_taken_for_it(after_one):
    rows = raw_examples([2, 3])
    images = np.zeros((2, 32, 32, 3), np.uint8)
    after_one.add(BOUND.make(images, ["", ""], [5, 5]))
    after_one.discard()
    assert len(replaying(after_one, rows, 1).add()) == 2 * EACH
    after_one.add(BOUND.make(images, ["", ""], [5, 5]))
    assert len(replaying(after_one, rows, 1).add()) == 0
    assert len(replaying(after_one, raw_examples([4]), 2).add()) == EACH
    assert np.bincount(after_one.labels).tolist() == [EACH] * 5 + [2]


def test_examples_in_a_given_order_stay_by_it(tmp_path):
    rows = raw_examples([0], each=60)
    with BOUND.create_memory(tmp_path / "m", max_bytes="12kB", durable=False) as memory:
        replaying(memory, rows, 0, order="given").add()
        assert 4 < len(memory) < 60
        assert memory.priorities.tolist() == [-float(rank) for rank in range(len(memory))]


def test_a_function_makes_exemplars_of_rows_that_no_recipe_knows(tmp_path):
    def make(rows, priorities):
        sets = [TokenSet([*range(len(row["text"]))], np.array(row["text"], np.int32)) for row in rows]
        return [
            Exemplar({"text": tokens}, label=row["label"], priority=float(priority))
            for tokens, row, priority in zip(sets, rows, priorities, strict=True)
        ]

    ids = Schema({"text": TokenSpec(positions=6, dtype="int32")})
    with ExemplarMemory.create(tmp_path / "m", schema=ids, max_bytes="100kB", durable=False) as memory:
        rows = [{"text": [5 + label, 7], "label": label} for label in (0, 1)]
        assert len(PhaseReplay(memory, rows, phase=0, make=make).add()) == 2
        loader = DataLoader(rows, batch_size=2, collate_fn=list)
        replay = PhaseReplay(memory, rows, phase=1, make=make).into(loader)
        (batch,) = loader
        assert sorted(batch[2:], key=str) == [{"text": [5, 7], "label": 0}, {"text": [6, 7], "label": 1}]
        replay.out_of(loader)
        assert len(next(iter(loader))) == 2


def test_tuples_of_image_and_label_are_replayed_as_tuples_in_workers(after_one):
    pairs = [(row["image"], row["label"]) for row in raw_examples([2, 3])]
    data = [as_pair(pair) for pair in pairs]
    loader = DataLoader(data, batch_size=4, num_workers=2)
    PhaseReplay(after_one, pairs, phase=1, transform=as_pair, replay=8).into(loader)
    loader.collate_fn = pickle.loads(pickle.dumps(loader.collate_fn))  # as workers get it that are spawned
    passes = [[mark for x, y in loader for _, mark in flat({"pixel_values": x, "labels": y})[4:]] for _ in range(2)]
    assert [len(one) for one in passes] == [8 * 8] * 2
    assert passes[0] != passes[1], "the seed of torch says which, and each iteration has another"
    assert {len(set(one)) for one in passes} == {2 * EACH}


def as_pair(pair):
    image, label = pair
    return as_input({"image": image, "label": label})["pixel_values"], label


def test_a_loop_that_is_left_with_break_goes_on_with_other_exemplars(after_one):
    rows = raw_examples([2, 3])
    loader = DataLoader([as_input(row) for row in rows], batch_size=4, shuffle=True)
    replay = replaying(after_one, rows, 1).into(loader)
    drawn = []
    for _ in range(8):
        for batch in loader:
            drawn += [mark for _, mark in flat(batch)[4:]]
            break
    assert len(set(drawn)) == 2 * EACH, "8 batches of 4 are all 32"
    replay.into(loader)
    assert len(next(iter(loader))["labels"]) == 8, "twice is once"


def test_what_makes_no_batches_is_refused(after_one):
    rows = raw_examples([2])
    for loader in ([1, 2], DataLoader(rows, batch_size=None)):
        with pytest.raises(SchemaError, match="expected a DataLoader that makes batches, got"):
            replaying(after_one, rows, 1).into(loader)


def test_ranks_replay_different_exemplars_and_only_rank_0_stores(after_one):
    rows = raw_examples([2, 3])
    drawn = []
    for rank in range(2):
        reader = ExemplarMemory.open(after_one.place)
        loader = DataLoader([as_input(row) for row in rows], batch_size=4)
        replay = replaying(reader, rows, 1).into(loader, share=(rank, 2))
        replay.begin(0)
        drawn += [mark for _, batch in zip(range(4), loader, strict=False) for _, mark in flat(batch)[4:]]
        assert len(replay.add(rank=1)) == 0
    assert len(set(drawn)) == 2 * EACH


def test_a_wrong_use_is_told_with_what_to_do(after_one, tmp_path):
    rows = raw_examples([2, 3])
    with pytest.raises(SchemaError, match=r"columns= which of them are \['label'\]"):
        PhaseReplay(after_one, [{"image": rows[0]["image"], "fine": 3}], phase=1)
    with pytest.raises(SchemaError, match="expected examples that are dicts"):
        PhaseReplay(after_one, [3], phase=1)
    with pytest.raises(SchemaError, match="got none"):
        PhaseReplay(after_one, [], phase=1)
    with pytest.raises(SchemaError, match=r"no option \['order_'\]"):
        PhaseReplay(after_one, rows, phase=1, order_="given")
    loader = DataLoader([as_input(row) for row in rows], batch_size=4)
    for wrong, told in ((lambda row: {"labels": 0}, r"lacks \['pixel_values'\]"), (None, "give transform=")):
        replaying(after_one, rows, 1, transform=wrong).into(loader)
        with pytest.raises(SchemaError, match=told):
            next(iter(loader))
    with pytest.raises(SchemaError, match="tuples of"):
        PhaseReplay(after_one, [(rows[0]["image"], 2, "a text")], phase=1)
    floats = [{"image": np.zeros((3, 32, 32), np.float32), "label": 0}]
    with pytest.raises(InvalidExemplarError, match="give raw"):
        PhaseReplay(after_one, floats, phase=1).add()
    plain = Schema.images(size=32, patch=8)
    with ExemplarMemory.create(tmp_path / "m", schema=plain, max_bytes="1MB", durable=False) as memory:
        told = pytest.raises(SchemaError, match="give make=")
        with told:
            PhaseReplay(memory, rows, phase=0)
    vectors = Schema({"x": TokenSpec(positions=1, shape=(8,), dtype="float32")})
    with ExemplarMemory.create(tmp_path / "x", schema=vectors, max_bytes="1MB", durable=False) as memory:
        told = pytest.raises(SchemaError, match="expected a memory of pixels or texts")
        with told:
            PhaseReplay(memory, rows, phase=0)


def test_a_note_of_a_phase_that_was_interrupted_does_not_hold_once_others_add(after_one, monkeypatch):
    rows = raw_examples([2, 3])

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ExemplarMemory, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            replaying(after_one, rows, 1).add()
    after_one.add(BOUND.make(np.zeros((1, 32, 32, 3), np.uint8), [""], [9]))
    after_one.commit()
    assert len(replaying(after_one, rows, 1).add()) > 0


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_that_run_already_are_told_to_replay_nothing(after_one, workers):
    rows = raw_examples([2, 3])
    options = {"num_workers": workers, "persistent_workers": workers > 0}
    loader = DataLoader([as_input(row) for row in rows], batch_size=4, **options)
    assert len(next(iter(loader))["labels"]) == 4
    replay = replaying(after_one, rows, 1)
    if workers:
        with pytest.raises(SchemaError, match="run already and would replay nothing"):
            replay.into(loader)
    else:
        assert len(next(iter(replay.into(loader) and loader))["labels"]) == 8


GREY = Image.fromarray(np.arange(1024, dtype=np.uint8).reshape(32, 32))


@pytest.mark.parametrize(
    "image",
    [
        GREY,
        GREY.convert("RGBA"),
        GREY.convert("LA"),
        GREY.convert("P"),
        np.asarray(GREY),
        np.asarray(GREY)[..., None],
        torch.from_numpy(np.asarray(GREY).copy())[None],
        torch.from_numpy(np.asarray(GREY).copy()),
    ],
    ids=["L", "RGBA", "LA", "P", "array", "array of one channel", "tensor of one channel", "tensor"],
)
def test_replayed_images_are_of_the_kind_of_those_that_were_given(tmp_path, image):
    seen = []
    rows = [(image, label) for label in (0, 1)]
    with BoundRecipe("raw", PlainImages(size=32, patch=8)).create_memory(tmp_path / "m", max_bytes="1MB") as memory:
        PhaseReplay(memory, rows, phase=0).add()

        def transform(row):
            seen.append(row[0])
            return torch.zeros(1), row[1]

        loader = DataLoader([(torch.zeros(1), 0)] * 2, batch_size=2)
        next(iter(PhaseReplay(memory, rows, phase=1, transform=transform).into(loader) and loader))
    assert len(seen) == 2
    for replayed in seen:
        assert type(replayed) is type(image) or isinstance(image, Image.Image)
        wanted = image.convert("RGB") if isinstance(image, Image.Image) and image.mode == "P" else image
        np.testing.assert_array_equal(np.asarray(replayed), np.asarray(wanted))


def test_an_image_that_has_to_be_turned_is_told(memory):
    turned = Image.new("RGB", (32, 32))
    turned.getexif()[0x0112] = 6
    with pytest.warns(DataWarning, match="exif_transpose"):
        PhaseReplay(memory, [{"image": turned, "label": 0}], phase=0).add()


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_images_of_more_than_8_bits_are_refused_before_the_phase_is_learnt(memory, mode):
    with pytest.raises(InvalidExemplarError, match="8 bits"):
        PhaseReplay(memory, [{"image": Image.new(mode, (32, 32)), "label": 0}], phase=0)
