"""What a learner of PyCIL or PILOT remembers, without either."""

import pickle
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exmem.errors import InvalidExemplarError, SchemaError
from exmem.integrations.pilot import ByteMemory
from exmem.integrations.pilot.exemplars import LearnerExemplars
from exmem.integrations.pilot.images import pixels, resize_of, square
from exmem.integrations.pilot.learner import herded
from exmem.selection import herding


def images(count, *, seed=0, size=8):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def held(counts, *, limit=100, **settings):
    exemplars = LearnerExemplars(limit, is_fixed=False, **{"recipe": "raw", **settings})
    data = [images(count, seed=label) for label, count in enumerate(counts)]
    for label, rows in enumerate(data):
        exemplars.offer(label, rows, iter(range(len(rows))))
    exemplars.field.commit()
    return exemplars, data


def test_data_are_by_class_in_the_order_of_choice_whatever_their_slots():
    exemplars, (zeros, ones) = held([3, 2])
    more = images(2, seed=9)
    exemplars.offer(2, more, iter([1, 0]))
    np.testing.assert_array_equal(exemplars.data, np.concatenate([zeros, ones, more[::-1]]))
    assert exemplars.targets.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert exemplars.targets.dtype == np.int64
    exemplars.keep_first(1, 2)
    np.testing.assert_array_equal(exemplars.data, np.stack([zeros[0], ones[0]]))


def test_data_are_decoded_once_while_somebody_holds_them_and_again_after_a_change():
    exemplars, _ = held([3, 2])
    first = exemplars.data
    assert exemplars.data is first
    exemplars.drop_from(1)
    assert len(exemplars.data) == 3
    assert len(first) == 5


@pytest.mark.parametrize("recipe", ["raw", "jpeg"])
def test_what_is_assigned_and_held_keeps_its_slot_and_is_not_stored_anew(recipe):
    exemplars, _ = held([3, 2], recipe=recipe)
    data, slots = exemplars.data, exemplars.field.slots
    exemplars.assign("data", np.zeros(0))
    exemplars.assign("targets", np.zeros(0))
    exemplars.assign("data", data[[0, 1, 3]])
    exemplars.assign("targets", np.array([0.0, 0.0, 1.0]))
    assert exemplars.settle()
    assert not exemplars.settle()
    assert exemplars.field.slots.tolist() == slots[[0, 1, 3]].tolist()
    np.testing.assert_array_equal(exemplars.data, data[[0, 1, 3]])


def test_what_is_assigned_in_another_order_with_doubles_and_new_ones_is_held_so():
    exemplars, _ = held([3, 2])
    data, new = exemplars.data, images(2, seed=5)
    exemplars.assign("data", np.concatenate([data[[2, 0]], new[:1], data[[2]], data[[4]], new[1:]]))
    exemplars.assign("targets", np.array([0, 0, 0, 0, 1, 7]))
    exemplars.settle()
    np.testing.assert_array_equal(exemplars.data, np.stack([data[2], data[0], new[0], data[2], data[4], new[1]]))
    assert exemplars.targets.tolist() == [0, 0, 0, 0, 1, 7]


def test_one_array_alone_is_refused_until_the_other_fits():
    exemplars, _ = held([3, 2])
    exemplars.assign("targets", np.array([0, 0]))
    with pytest.raises(InvalidExemplarError, match="assign both"):
        exemplars.settle()
    exemplars.assign("data", exemplars.data[:2])
    exemplars.settle()
    assert len(exemplars) == 2


def test_a_class_offers_until_its_share_is_full_and_lends_what_it_does_not_use():
    exemplars, _ = held([400, 3, 400], limit=None, max_bytes=60_000)
    counts = np.bincount(exemplars.targets)
    assert counts[1] == 3
    assert abs(counts[0] - counts[2]) <= 2
    assert exemplars.field.memory.used_bytes <= 60_000
    for label in (0, 2):
        np.testing.assert_array_equal(exemplars.of_class(label)[0], images(400, seed=label)[: counts[label]])
    assert exemplars.most_of(3) > counts.max()


def test_an_add_that_is_discarded_leaves_what_was_committed():
    exemplars, (zeros,) = held([3])
    exemplars.offer(1, images(2), iter([0, 1]))
    exemplars.field.discard()
    np.testing.assert_array_equal(exemplars.data, zeros)


def test_a_pickle_is_a_memory_of_its_own():
    exemplars, (zeros, _) = held([3, 2])
    other = pickle.loads(pickle.dumps(exemplars))
    exemplars.drop_from(0)
    assert len(exemplars) == 0
    assert len(exemplars.data) == len(exemplars.targets) == 0
    np.testing.assert_array_equal(other.data[:3], zeros)


def test_a_place_with_exemplars_is_refused_to_a_learner_that_knows_none(tmp_path: Path):
    exemplars, _ = held([3, 2], place=tmp_path / "memory")
    exemplars.field.close()
    again = LearnerExemplars(100, is_fixed=False, recipe="raw", place=tmp_path / "memory")
    with pytest.raises(SchemaError, match="5 exemplars of 2 classes"):
        again.begin(0)
    again.begin(1)
    assert again.targets.tolist() == [0, 0, 0]
    again.begin(0)  # asked once: a learner forgets no classes later


def test_limits_are_asked_for():
    with pytest.raises(SchemaError, match="memory_size, or max_bytes"):
        LearnerExemplars(None, is_fixed=False)


def test_paths_become_their_central_square_at_the_size(tmp_path: Path):
    wide = np.zeros((20, 40, 3), np.uint8)
    wide[:, 10:30] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    row = pixels(np.array([str(tmp_path / "wide.png")]), square(10))[0]
    assert row.shape == (10, 10, 3)
    assert row[:, 1:-1].min() == 200
    with pytest.raises(SchemaError, match="size="):
        pixels(np.array(["a.png"]), None)
    with pytest.raises(InvalidExemplarError, match="uint8 or paths"):
        pixels(np.zeros((2, 8, 8, 3), np.float32), square(10))


def test_the_size_is_that_of_the_test_transform_or_asked_for():
    resize = type("Resize", (), {})()
    assert resize_of([types.SimpleNamespace(), resize]) is resize
    with pytest.raises(SchemaError, match="size="):
        resize_of([types.SimpleNamespace()])


def test_herding_in_single_precision_orders_as_in_double_where_there_are_no_ties():
    vectors = np.random.default_rng(0).standard_normal((200, 12)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    order = list(herded(vectors))
    assert sorted(order) == list(range(200))
    assert order[:50] == herding(vectors, count=50).tolist()


def test_a_place_that_cannot_be_filled_in_is_told():
    class Learner:
        _fixed_memory, _memory_per_class = False, None

        def __init__(self, args):
            self._memory_size = args["memory_size"]

    class OurLearner(ByteMemory, Learner):
        pass

    with pytest.raises(SchemaError, match=r"place 'p_\{sed\}' is filled in with keys of the configuration"):
        OurLearner({"memory_size": 20, "exmem": {"place": "p_{sed}"}, "seed": 1})
