"""PyCIL and PILOT with a memory of bytes. Neither has tests of its own; its methods run here beside theirs, unchanged.

What is not run: BEEF, DGR and PyCIL's COIL (they ask for CUDA), TagFex (two augmented views), MEMO (a network in two
parts), RMM (a policy learnt beforehand).
"""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from exmem.errors import BudgetError, SchemaError
from exmem.integrations.pilot import ByteMemory, byte_memory
from tests.integrations.peers.pilot_peer import (
    Idata,
    Prepared,
    args_of,
    data_manager,
    idata,
    learner_of,
    loaded,
    run,
    seeded,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # both peers warn for reasons of their own: empty means, old torch calls
    pytest.mark.slow,
]

RAW = {"recipe": "raw"}


@pytest.fixture(params=["LAMDA-PILOT", "PyCIL"])
def peer(request):
    with loaded(request.param) as modules:
        yield modules


@pytest.fixture
def pilot():
    with loaded("LAMDA-PILOT") as modules:
        yield modules


def learner_and_data(peer, counts, *, method="icarl", give=byte_memory, per_phase=2, data=None, **changes):
    args = args_of(len(counts), per_phase, **changes)
    manager = data_manager(peer, idata(counts) if data is None else data, args)
    seeded(0)
    return learner_of(peer, method, args, give), manager


def held(learner):
    return np.array(learner._data_memory), np.array(learner._targets_memory)


def assert_same(one, other):
    for mine, theirs in zip(held(one), held(other), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("name", "method"),
    [("LAMDA-PILOT", "icarl"), ("LAMDA-PILOT", "der"), ("LAMDA-PILOT", "foster")]
    + [("PyCIL", method) for method in ("icarl", "replay", "wa", "bic", "der", "foster", "gem")],
)
def test_raw_exemplars_means_and_accuracies_are_the_peers_to_the_bit(name, method):
    per_phase = 5 if method == "foster" else 2  # it asks for a top-5 accuracy
    size = 22 * per_phase + 1
    with loaded(name) as modules:
        theirs, ours = (
            learner_and_data(
                modules,
                [24] * 2 * per_phase,
                method=method,
                give=give,
                per_phase=per_phase,
                memory_size=size,
                exmem=RAW,
            )
            for give in (None, byte_memory)
        )
        assert str(run(*theirs, 2)) == str(run(*ours, 2))
    assert_same(theirs[0], ours[0])
    assert len(ours[0]._data_memory) == size - 1
    np.testing.assert_array_equal(theirs[0]._class_means, ours[0]._class_means)


def test_six_phases_of_a_shrinking_share_stay_the_peers_to_the_bit(pilot):
    theirs, ours = (
        learner_and_data(pilot, [30] * 12, give=give, memory_size=60, exmem=RAW) for give in (None, byte_memory)
    )
    for learner, manager in (theirs, ours):
        learner._train = lambda *_: None
        for _ in range(6):
            run(learner, manager, 1)
            if learner is ours[0]:
                memory = learner.exemplars.field.memory
                assert memory.used_bytes <= memory.max_bytes
    assert_same(theirs[0], ours[0])


def test_fixed_memory_grows_with_the_classes_as_the_peers_does(peer):
    theirs, ours = (
        learner_and_data(peer, [9] * 6, give=give, fixed_memory=True, memory_per_class=4, exmem=RAW)
        for give in (None, byte_memory)
    )
    assert str(run(*theirs, 3)) == str(run(*ours, 3))
    assert_same(theirs[0], ours[0])
    assert len(ours[0]._targets_memory) == 24


def test_classes_with_fewer_images_than_are_asked_for_end_the_peer_and_not_ours(peer):
    theirs = learner_and_data(peer, [15, 3, 15, 1], give=None)
    with pytest.raises(ValueError, match="argmin"):
        run(*theirs, 2)
    ours, manager = learner_and_data(peer, [15, 3, 15, 1], memory_size=24, exmem=RAW)
    run(ours, manager, 2)
    assert np.bincount(ours._targets_memory).tolist() == [6, 3, 6, 1]
    assert np.isfinite(ours._class_means).all()


def test_a_class_that_may_hold_nothing_is_never_the_nearest(peer):
    learner, manager = learner_and_data(peer, [9] * 4, memory_size=3)
    learner.topk = 1
    run(learner, manager, 1)
    accuracies = run(learner, manager, 1)
    assert learner._get_memory() is None
    assert np.isnan(learner._class_means).all()
    assert accuracies[0][0]["top1"] >= 0


@pytest.mark.parametrize(("recipe", "most"), [("raw", 120_000), ("jpeg", 40_000)])
def test_bytes_alone_hold_a_prefix_of_each_class_and_are_never_exceeded(peer, recipe, most, tmp_path):
    place, counts = tmp_path / "memory", [40, 60, 5, 40]
    settings = {"max_bytes": most, "recipe": recipe, "place": str(place)}
    data = idata(counts, size=32)
    learner, manager = learner_and_data(peer, counts, data=data, memory_size=None, exmem=settings)
    everything, same = learner_and_data(peer, counts, data=data, memory_size=400, exmem=RAW)
    for one, data in ((learner, manager), (everything, same)):
        one._train = lambda *_: None  # so that the networks are the same
        run(one, data, 2)
    memory = learner.exemplars.field.memory
    assert sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) <= memory.used_bytes <= most
    counts = np.bincount(learner._targets_memory)
    assert counts[2] == 5  # what it does not use it lends
    assert counts.sum() < 145
    assert memory.free_bytes < 8_000
    assert learner._memory_size == counts.sum()
    if recipe == "raw":
        for label, count in enumerate(counts.tolist()):
            of_class = everything._data_memory[everything._targets_memory == label][:count]
            np.testing.assert_array_equal(learner._data_memory[learner._targets_memory == label], of_class)


def test_means_are_those_of_the_decoded_exemplars_that_are_held(peer):
    learner, manager = learner_and_data(peer, [30] * 4, memory_size=None, exmem={"max_bytes": 40_000, "recipe": "jpeg"})
    run(learner, manager, 2)
    data, targets = learner._get_memory()
    for label in range(4):
        rows = manager.get_dataset(
            [], source="train", mode="test", appendent=(data[targets == label], targets[targets == label])
        )
        vectors, _ = learner._extract_vectors(DataLoader(rows, batch_size=64))
        unit = vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-8)
        mean = unit.mean(0) / np.linalg.norm(unit.mean(0))
        np.testing.assert_allclose(learner._class_means[label], mean, rtol=1e-5)  # single precision


def test_more_and_fewer_bytes_and_exemplars_while_it_is_full(pilot):
    settings = {"max_bytes": 90_000, "recipe": "raw"}
    learner, manager = learner_and_data(pilot, [40] * 6, data=idata([40] * 6, size=32), memory_size=60, exmem=settings)
    run(learner, manager, 1)
    memory, first = learner.exemplars.field.memory, len(learner.exemplars)
    assert first < 60
    learner.exemplars.field.resize(max_bytes=60_000)
    assert len(learner.exemplars) < first
    assert memory.used_bytes <= 60_000
    learner.exemplars.field.resize(max_bytes=240_000)
    run(learner, manager, 1)
    assert np.bincount(learner._targets_memory)[2:].tolist() == [15, 15]
    learner._memory_size = 12
    assert learner.exemplar_size == 12
    run(learner, manager, 1)
    assert np.bincount(learner._targets_memory).tolist() == [2] * 6


def test_a_budget_that_holds_no_image_is_refused_and_says_how_much_one_needs(pilot):
    learner, manager = learner_and_data(
        pilot, [9] * 2, data=idata([9] * 2, size=64), exmem={"max_bytes": 12_000, "recipe": "raw"}
    )
    with pytest.raises(BudgetError, match=r"needs"):
        run(learner, manager, 1)


def test_a_learner_made_anew_goes_on_where_the_last_phase_ended(peer, tmp_path):
    settings = {"exmem": {"recipe": "raw", "place": str(tmp_path / "{model_name}-{seed}")}, "memory_size": 18}
    whole, manager = learner_and_data(peer, [12] * 6, **{**settings, "exmem": RAW})
    run(whole, manager, 3)
    first, manager = learner_and_data(peer, [12] * 6, **settings)
    run(first, manager, 2)
    assert (tmp_path / "any-0").is_dir()
    weights = first._network.state_dict()
    first.exemplars.field.close()

    second, manager = learner_and_data(peer, [12] * 6, **settings)
    with pytest.raises(SchemaError, match="knows none"):
        second.incremental_train(manager)
    second._cur_task, second._known_classes, second._total_classes = 1, 4, 4
    second._network.update_fc(4)
    second._network.load_state_dict(weights)
    second._old_network = second._network.copy().freeze()
    run(second, manager, 1)
    assert_same(second, whole)
    np.testing.assert_array_equal(second._class_means, whole._class_means)


def test_what_a_phase_left_that_is_learnt_again_is_replaced(pilot, tmp_path):
    settings = {"exmem": {"recipe": "raw", "place": str(tmp_path / "memory")}, "memory_size": 18}
    first, manager = learner_and_data(pilot, [12] * 6, **settings)
    run(first, manager, 1)
    old = first._network.state_dict()
    run(first, manager, 1)
    first.exemplars.field.close()
    second, manager = learner_and_data(pilot, [12] * 6, **settings)
    second._cur_task, second._known_classes, second._total_classes = 0, 2, 2
    second._network.update_fc(2)
    second._network.load_state_dict(old)
    second._old_network = second._network.copy().freeze()
    assert set(second._targets_memory.tolist()) == {0, 1, 2, 3}
    assert set(second._get_memory()[1].tolist()) == {0, 1}
    run(second, manager, 1)
    assert np.bincount(second._targets_memory).tolist() == [4, 4, 4, 4]


def test_a_phase_whose_choice_is_interrupted_leaves_the_old_exemplars_and_can_be_done_again(peer):
    learner, manager = learner_and_data(peer, [12] * 4, memory_size=16, exmem=RAW)
    run(learner, manager, 1)
    before, extract = held(learner), learner._extract_vectors
    calls = iter(range(100))

    def interrupted(loader):
        if next(calls) == 4:  # two means of old classes, a new class, and its means come later
            raise KeyboardInterrupt
        return extract(loader)

    learner._extract_vectors = interrupted
    learner._train = lambda *_: None
    calls = iter([0, 1, 2, 4])
    with pytest.raises(KeyboardInterrupt):
        learner.incremental_train(manager)
    assert learner._targets_memory.tolist() == [0] * 4 + [1] * 4
    np.testing.assert_array_equal(learner._data_memory, np.concatenate([before[0][:4], before[0][8:12]]))
    learner._extract_vectors = extract
    learner.build_rehearsal_memory(manager, learner.samples_per_class)
    assert np.bincount(learner._targets_memory).tolist() == [4] * 4


def test_podnet_never_holds_more_than_it_was_allowed_while_it_tunes(tmp_path):
    with loaded("PyCIL") as modules:
        learner, manager = learner_and_data(modules, [12] * 4, method="podnet", memory_size=16, exmem=RAW)
        modules.method("podnet").epochs = modules.method("podnet").ft_epochs = 1
        run(learner, manager, 2)
    assert np.bincount(learner._targets_memory).tolist() == [4] * 4


def test_the_mixin_does_what_the_decorator_does(pilot):
    base = pilot.base.BaseLearner

    class Learner(ByteMemory, base):
        pass

    decorated = byte_memory(base)
    assert (decorated.__name__, decorated.__module__) == (base.__name__, base.__module__)
    assert [kind.__name__ for kind in decorated.__mro__[1:]] == [kind.__name__ for kind in Learner.__mro__[1:]]
    with pytest.raises(SchemaError, match=r"no setting \['max_byte'\].*max_bytes"):
        Learner(args_of(4, 2, exmem={"max_byte": 3}))
    with pytest.raises(SchemaError, match="give memory_size, or max_bytes"):
        Learner(args_of(4, 2, memory_size=None))


def test_a_method_that_chooses_in_its_own_way_is_held_as_it_chose_and_measured(pilot):
    def own(kind):
        class Own(byte_memory(kind)):
            def _construct_exemplar(self, manager, m):
                for label in range(self._known_classes, self._total_classes):
                    data, targets, _ = manager.get_dataset([label], source="train", mode="test", ret_data=True)
                    chosen = data[::-1][:m], targets[:m]
                    if len(self._data_memory):
                        chosen = (
                            np.concatenate((self._data_memory, chosen[0])),
                            np.concatenate((self._targets_memory, chosen[1])),
                        )
                    self._data_memory, self._targets_memory = chosen

        return Own

    learner, manager = learner_and_data(pilot, [9] * 4, give=own, exmem=RAW)
    run(learner, manager, 2)
    assert np.bincount(learner._targets_memory).tolist() == [3] * 4
    for label in range(4):
        images = manager._train_data[manager._train_targets == label][::-1][:3]
        np.testing.assert_array_equal(learner._data_memory[learner._targets_memory == label], images)
    assert np.isfinite(learner._class_means).all()


def test_copies_and_pickles_of_the_exemplars_are_memories_of_their_own(pilot):
    learner, manager = learner_and_data(pilot, [9] * 4, exmem=RAW)
    run(learner, manager, 1)
    before = held(learner)
    copies = [copy.deepcopy(learner.exemplars), pickle.loads(pickle.dumps(learner.exemplars))]
    run(learner, manager, 1)
    for one in copies:
        np.testing.assert_array_equal(one.data, before[0])
        one.drop_from(1)
    assert np.bincount(learner._targets_memory).tolist() == [3] * 4


@pytest.fixture
def files(tmp_path):
    """Images of unequal sizes in files, as the peers' folders of ImageNet and others are."""
    from torchvision import transforms

    rng, folder = np.random.default_rng(0), tmp_path / "files"
    folder.mkdir()

    def written(number, counts):
        paths, targets = [], np.repeat(np.arange(len(counts)), counts)
        for row, label in enumerate(targets.tolist()):
            height, width = rng.integers(40, 70, 2)
            low = np.full((4, 4, 3), 40 + 40 * label) + rng.integers(-30, 31, (4, 4, 3))
            image = Image.fromarray(low.astype(np.uint8)).resize((int(width), int(height)))
            paths.append(str(folder / f"{number}-{label}-{row}.png"))
            image.save(paths[-1])
        return np.array(paths), targets

    train = [transforms.RandomResizedCrop(16), transforms.RandomHorizontalFlip()]
    test = [transforms.Resize(24), transforms.CenterCrop(16)]
    return Idata(
        written(0, [9] * 4), written(1, [3] * 4), transforms=(train, test, [transforms.ToTensor()]), use_path=True
    )


def viewed(manager, data, targets):
    return torch.stack(
        [row[1] for row in manager.get_dataset([], source="train", mode="test", appendent=(data, targets))]
    )


def test_images_of_paths_are_stored_themselves_and_look_to_the_test_as_their_files_do(peer, files):
    theirs, ours = (learner_and_data(peer, [9] * 4, give=give, data=files, exmem=RAW) for give in (None, byte_memory))
    run(*theirs, 1)
    run(*ours, 1)
    learner, manager = ours
    for one, other in zip(held(learner)[1:], held(theirs[0])[1:], strict=True):
        np.testing.assert_array_equal(one, other)
    assert torch.equal(viewed(manager, *learner._get_memory()), viewed(manager, *theirs[0]._get_memory()))
    np.testing.assert_array_equal(learner._class_means, theirs[0]._class_means)
    for path in files.train_data[files.train_targets < 2]:
        Path(path).unlink()
    run(learner, manager, 1)
    assert np.bincount(learner._targets_memory).tolist() == [3] * 4


def test_workers_open_exemplars_among_paths(pilot, files):
    learner, manager = learner_and_data(pilot, [9] * 4, data=files, exmem={"recipe": "raw", "size": 20})
    run(learner, manager, 1)
    assert {np.asarray(image.image()).shape for image in learner._data_memory} == {(20, 20, 3)}
    dataset = manager.get_dataset([2, 3], source="train", mode="test", appendent=learner._get_memory())
    alone = torch.cat([images for _, images, _ in DataLoader(dataset, batch_size=8)])
    loader = DataLoader(dataset, batch_size=8, num_workers=2)
    for _ in loader:
        break
    assert torch.equal(torch.cat([images for _, images, _ in loader]), alone)
    spawned = DataLoader(Prepared(dataset), batch_size=8, num_workers=1, multiprocessing_context="spawn")
    assert torch.equal(torch.cat([images for _, images, _ in spawned]), alone)


def test_a_learner_made_anew_shows_images_of_paths_as_they_were(pilot, files, tmp_path):
    settings = {"data": files, "exmem": {"place": str(tmp_path / "memory"), "recipe": "raw"}}
    first, manager = learner_and_data(pilot, [9] * 4, **settings)
    run(first, manager, 1)
    views = viewed(manager, *first._get_memory())
    first.exemplars.field.close()
    second, manager = learner_and_data(pilot, [9] * 4, **settings)
    second._cur_task, second._known_classes, second._total_classes = 0, 2, 2
    assert torch.equal(viewed(manager, *second._get_memory()), views)
    data = second._data_memory
    assert copy.deepcopy(data)[0] is data[0]
    with pytest.raises(SchemaError, match="no images of arrays"):
        second.exemplars.offer(2, np.zeros((1, 24, 24, 3), np.uint8), iter([0]))
