"""Each option of the trainer does what it says, on a tiny backbone and real pictures."""

import dataclasses

import numpy as np
import pytest
import torch
from exmem.train.forms import stored_form
from exmem.train.making import make_recipe
from exmem.train.replaying import Exemplars
from rich.console import Console

from exmem import ExemplarMemory
from exmem.backbones import BACKBONES
from exmem.errors import SchemaError
from exmem.train.config import TrainConfig
from exmem.train.data import load_imagefolder
from exmem.train.learner import Learner
from exmem.train.storing import rank_examples
from exmem.train.trainer import Trainer
from tests.backbones.models import load
from tests.tiny import SIDE, load_joint, start, write_imagefolder, write_models

TOP_TWO = {"keep_rule": "top_k", "keep_patches": 2}
ALL_AT_ONCE = {"first_classes": 4, "max_bytes": "400kB"}  # one phase, and room for everything


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXMEM_CACHE", str(tmp_path_factory.mktemp("cache")))
        return load_imagefolder(write_imagefolder(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    models = write_models(tmp_path_factory.mktemp("models"))
    return lambda: load_joint(models)


@pytest.fixture
def one_phase(tmp_path, backbone, data):
    """Run one phase; return the trainer, the memory and what was measured."""

    def run(**options):
        folder = tmp_path / f"run{len([*tmp_path.iterdir()])}"
        trainer = start(folder, backbone, data, **(ALL_AT_ONCE | options))
        (entry,) = trainer.run(Console(quiet=True))
        memory = ExemplarMemory.open(folder / "memory") if trainer.recipe else None
        return trainer, memory, entry

    return run


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"keep_rule": "top_k", "keep_patches": 3}, {"image": 3}),
        ({"keep_rule": "keep_ratio", "keep_ratio": 0.25}, {"image": 4}),
        ({"keep_rule": "cumulative", "keep_mass": 1e-6}, {"image": 1}),
        ({"keep_rule": "fit_bytes", "exemplar_bytes": 1}, {"image": 1}),
        ({"keep_rule": "fit_bytes", "exemplar_bytes": 10_000}, {"image": 16}),
        ({"fill": "thumbnail", "thumbnail": 12, **TOP_TWO}, {"image": 2, "thumbnail": 1}),
        ({"text_rule": "none", **TOP_TWO}, {"image": 2}),
        ({"text_rule": "all", **TOP_TWO}, {"image": 2, "text": 5}),
        (  # 2 of 16 patches at 8 px, half of the others at 4 px
            {"recipe": "foveated", "scale_factors": (1, 2), "scale_shares": (0.5,), **TOP_TWO},
            {"image": 2, "image_4": 7},
        ),
        ({"recipe": "text"}, {"text": 5}),
    ],
    ids=str,
)
def test_every_exemplar_holds_as_many_tokens_as_the_options_say(one_phase, options, expected):
    _, memory, entry = one_phase(**options)
    assert entry["exemplars"] == 32
    tokens = memory.read(memory.slots).tokens
    for name, count in expected.items():
        assert tokens[name].valid.sum(1).tolist() == [count] * 32, name
    assert {*tokens} - {"text"} == {*expected} - {"text"}
    assert ("text" in tokens) == (options.get("text_rule") != "none")


def test_modalities_have_the_scales_and_qualities_of_the_options(one_phase):
    _, memory, _ = one_phase(recipe="rate_aware", scale_factors=(1, 4), qualities=(20, 45))
    specs = memory.schema.modalities
    assert {*specs} == {"text", "image_q20", "image_q45", "image_2_q20", "image_2_q45"}
    assert (specs["image_2_q20"].shape, specs["image_2_q20"].codec["quality"]) == ((2, 2, 3), 20)
    _, memory, _ = one_phase(fill="thumbnail", thumbnail=12, quality=33)
    assert memory.schema.modalities["thumbnail"].shape == (12, 12, 3)
    assert memory.schema.modalities["image"].codec["quality"] == 33


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"quality": 10}, {"quality": 95}),
        ({"recipe": "foveated_picture", "coarse": 8}, {"recipe": "foveated_picture", "coarse": 1}),
        ({"recipe": "rate_aware", "exemplar_bytes": 60}, {"recipe": "rate_aware", "exemplar_bytes": 400}),
    ],
    ids=str,
)
def test_an_exemplar_takes_more_bytes_when_the_options_say_so(one_phase, less, more):
    sizes = []
    for options in (less, more):
        _, memory, _ = one_phase(**options)
        sizes.append(sum(one.payload_bytes for one in memory.summary().values()))
    assert sizes[0] < sizes[1]


def test_text_options_reach_the_text_rule(one_phase):
    def words(**options):
        _, memory, _ = one_phase(**options)
        return [{*one.tokens["text"].positions.tolist()} for one in memory.read(memory.slots)]

    found = {way: words(text_direction=way) for way in ("text_to_image", "image_to_text", "both")}
    one, other = found["text_to_image"], found["image_to_text"]
    assert found["both"] == [a | b for a, b in zip(one, other, strict=True)]
    assert one != other
    assert words(text_threshold=0.0) == [{*range(5)}] * 32
    assert all(len(own) < 5 for own in words(text_threshold=3.0))


def test_a_scorer_and_its_layers_decide_what_is_kept(one_phase):
    def kept(**options):
        _, memory, _ = one_phase(**({"keep_rule": "top_k", "keep_patches": 4} | options))
        return memory.read(memory.slots).tokens["image"].positions

    assert {*kept(scorer="centre").ravel().tolist()} == {5, 6, 9, 10}, "the middle of 4 x 4"
    last, first, random, other = kept(), kept(score_layers=(0,)), kept(scorer="random"), kept(scorer="random", seed=1)
    assert not np.array_equal(last, first)
    assert not np.array_equal(random, last)
    assert not np.array_equal(random, other)


def test_a_learner_of_images_stores_no_text_and_has_zeros_in_its_place(one_phase, data):
    trainer, memory, entry = one_phase(modalities="image")
    assert [*memory.schema.modalities] == ["image"]
    with torch.no_grad():
        features = trainer.backbone.encode(trainer._streams["train"](np.arange(8)))
    width = trainer.backbone.width
    assert not features[:, 2 * width :].any()
    assert features[:, : 2 * width].abs().min(0).values.max() > 0
    assert entry["linear"]["all"] == entry["linear"]["all"]
    trainer, memory, _ = one_phase(modalities="text", recipe="text")
    assert [*memory.schema.modalities] == ["text"]
    with torch.no_grad():
        features = trainer.backbone.encode(trainer._streams["train"](np.arange(8)))
    assert not features[:, width : 2 * width].any()
    assert features[:, 2 * width :].any()


def counts_by_class(memory):
    return [own.exemplars for _, own in sorted(memory.summary().items())]


def test_the_quota_shares_bytes_or_counts(one_phase):
    tight = {"recipe": "jpeg", "quality": 95, "max_bytes": "17kB"}
    found = {quota: counts_by_class(one_phase(quota=quota, **tight)[1]) for quota in ("bytes", "counts")}
    assert max(found["counts"]) - min(found["counts"]) <= 1
    assert max(found["bytes"]) - min(found["bytes"]) > 1, "one photograph takes more bytes than the other"
    assert 8 < sum(found["counts"]) < 32


def test_the_quota_by_frequency_follows_the_training_examples(one_phase, data, tmp_path, backbone):
    rows = np.concatenate([np.flatnonzero(data[0].labels == label)[:count] for label, count in enumerate((8, 2, 4, 4))])
    parts = {name: tuple(np.array(getattr(data[0], name))[rows]) for name in ("paths", "texts")}
    fewer = dataclasses.replace(data[0], labels=data[0].labels[rows], **parts)
    found = {}
    for quota in ("bytes", "frequency"):
        options = {"recipe": "raw", "max_bytes": "46kB", "quota": quota, "first_classes": 2, "increments": (2,)}
        start(tmp_path / quota, backbone, (fewer, data[1]), **options).run(Console(quiet=True))
        found[quota] = counts_by_class(ExemplarMemory.open(tmp_path / quota / "memory"))
    total = sum(found["frequency"])
    assert 6 < total < 18
    shares = total * np.array([8, 2, 4, 4]) / 18
    assert np.abs(np.array(found["frequency"]) - shares).max() <= 1
    assert np.ptp(found["bytes"][:1] + found["bytes"][2:]) <= 1, "equal where there are enough"


@pytest.mark.parametrize("selection", ["loss", "entropy", "closest_to_mean"])
def test_exemplars_are_ranked_by_the_selection(one_phase, monkeypatch, selection):
    seen = {}

    def spied(features, labels, **options):
        seen.update(features=features, labels=labels, **options)
        seen["ranks"] = rank_examples(features, labels, **options)
        return seen["ranks"]

    monkeypatch.setattr("exmem.train.trainer.rank_examples", spied)
    trainer, memory, _ = one_phase(selection=selection)
    assert seen["selection"] == selection
    logits = trainer.learner.logits(torch.from_numpy(seen["features"]))
    targets = trainer.learner.targets(torch.from_numpy(seen["labels"]))
    log_p = torch.log_softmax(logits, -1)
    hardness = {
        "loss": -log_p.gather(1, targets[:, None])[:, 0],
        "entropy": -(log_p.exp() * log_p).sum(1),
        "closest_to_mean": None,
    }[selection]
    if hardness is None:
        assert seen["values"] is None
    else:
        np.testing.assert_allclose(seen["values"], hardness, rtol=1e-4)
        for label in range(4):
            own = seen["labels"] == label
            order = np.argsort(seen["ranks"][own])
            assert (np.diff(hardness.numpy()[own][order]) <= 0).all(), "the hardest first"
    stored = memory.read(memory.slots)
    for label in range(4):
        assert sorted(stored.priorities[stored.labels == label]) == [*range(-7, 1)]


def test_examples_may_be_ranked_by_what_would_be_stored_of_them(one_phase, monkeypatch):
    seen = []

    def spied(features, labels, **options):
        seen.append(features)
        return rank_examples(features, labels, **options)

    monkeypatch.setattr("exmem.train.trainer.rank_examples", spied)
    one_phase()
    trainer, _, _ = one_phase(selection_form="stored")
    rows = np.arange(32)
    tokens = stored_form(trainer.backbone, trainer.train, trainer.recipe, fill="drop")(rows)
    with torch.no_grad():
        expected = trainer.learner.features(trainer.backbone.embed(tokens)).numpy()
    np.testing.assert_allclose(seen[1], expected, atol=1e-5)
    assert np.abs(seen[0] - seen[1]).max() > 0.01


@pytest.fixture
def losses(monkeypatch):
    """Image tokens of each example in each loss, in order."""
    found, loss = [], Learner.loss

    def spied(self, stream, labels, **options):
        assert stream.image.valid.shape[1] == int(stream.image.valid.sum(1).max()), "no padding of dropped tokens"
        found.append(stream.image.valid.sum(1).tolist())
        return loss(self, stream, labels, **options)

    monkeypatch.setattr(Learner, "loss", spied)
    return found


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {16}),
        ({"new_stored_form": 1.0}, {5}),
        ({"new_stored_form": 1.0, "cache_features": False}, {5}),
        ({"new_stored_form": 1.0, "fill": "mean"}, {16}),
        ({"new_stored_form": 1.0, "new_masks": "random", "keep_ratio": 0.5}, {8}),
        ({"new_stored_form": 1.0, "new_masks": "random", "keep_ratio": 0.5, "recipe": "none"}, {8}),
        ({"new_stored_form": 0.5}, {5, 16}),
    ],
    ids=str,
)
def test_new_examples_are_shown_whole_or_as_they_would_be_stored(one_phase, losses, options, expected):
    one_phase(keep_rule="top_k", keep_patches=5, **options)
    counts = [count for own in losses for count in own]
    assert {*counts} == expected
    assert len(counts) == 32, "each example once"
    assert all(len({*own}) == 1 for own in losses), "whole and masked ones apart"


def test_the_loss_of_new_examples_in_two_forms_is_weighed_by_their_numbers(one_phase, monkeypatch):
    seen = []

    def backward(self, loss):
        seen.append(float(loss.detach()))
        loss.backward()

    monkeypatch.setattr("accelerate.Accelerator.backward", backward)
    one_phase(recipe="none", new_stored_form=0.5, new_masks="random", lr=1e-30)
    # With weights of 0, each loss is log 4; the parts of each of four steps add up to one such loss.
    assert len(seen) == 8
    np.testing.assert_allclose(np.sum(seen), 4 * np.log(4), rtol=1e-5)


def test_accuracy_as_stored_stands_beside_accuracy_on_whole_examples(one_phase):
    _, _, entry = one_phase(recipe="raw", test_stored_form=True)
    for head in ("linear", "ncm"):
        assert entry[f"{head}_stored"] == entry[head], "pixels are what they were"
    _, _, entry = one_phase(recipe="text", test_stored_form=True)
    assert entry["ncm_stored"] != entry["ncm"]
    assert {*one_phase()[2]} & {"linear_stored", "ncm_stored"} == set()


def exemplars_of(trainer, memory, **options):
    """Exemplars of a finished run, replayed by other options."""
    config = dataclasses.replace(trainer.config, **options)
    folder = trainer.folder.path / f"again-{options}"
    found = Exemplars(config, trainer.backbone, trainer.recipe, memory=memory, features=folder)
    found.update(0, 0)
    return found, (folder / "exemplars-0.safetensors").exists()


def drawn(exemplars, **options):
    (found,) = exemplars.draw(1, **({"seed": 3, "epoch": 0} | options))
    return found


def test_streams_of_exemplars_are_kept_only_where_no_augmentation_needs_pixels(one_phase):
    trainer, _, _ = one_phase(replay_batch=16)
    folder = trainer.folder.memory
    plain, kept = exemplars_of(trainer, folder)
    assert kept
    live, kept = exemplars_of(trainer, folder, cache_features=False)
    assert not kept
    (one, labels), (other, same_labels) = drawn(plain), drawn(live)
    assert torch.equal(labels, same_labels)
    torch.testing.assert_close(one.image.values, other.image.values, atol=2e-2, rtol=1e-2)  # kept as float16
    for names, expected in {
        ("text_exchange", "token_dropout"): True,
        ("flip",): False,
        ("token_dropout", "patch_paste"): False,
        ("colour_jitter",): False,
        ("image_exchange",): False,
    }.items():
        augmented, kept = exemplars_of(trainer, folder, augmentations=names, augment_probability=1.0)
        assert kept == expected, names
        found, labels = drawn(augmented)
        assert torch.equal(labels, same_labels)
        changed_values, values = found.image.values, other.image.values
        assert changed_values.shape != values.shape or (changed_values - values).abs().max() > 0.05, names
        never, _ = exemplars_of(trainer, folder, augmentations=names, augment_probability=0.0)
        there = other.image.valid
        torch.testing.assert_close(drawn(never)[0].image.values[there], values[there], atol=2e-2, rtol=1e-2)


@pytest.mark.parametrize("cached", [True, False])
def test_dropped_and_exchanged_tokens_of_exemplars(one_phase, cached):
    trainer, _, _ = one_phase(keep_rule="top_k", keep_patches=8, replay_batch=16)
    folder, options = trainer.folder.memory, {"cache_features": cached, "augment_probability": 1.0}
    plain, labels = drawn(exemplars_of(trainer, folder, cache_features=cached)[0])
    fewer, _ = drawn(exemplars_of(trainer, folder, augmentations=("token_dropout",), drop_ratio=0.75, **options)[0])
    assert plain.image.valid.sum(1).tolist() == [8] * 16
    assert fewer.image.valid.sum(1).tolist() == [2] * 16
    other, _ = drawn(exemplars_of(trainer, folder, augmentations=("text_exchange",), **options)[0])
    assert torch.equal(other.image.positions, plain.image.positions)
    texts = [tuple(row[keep].flatten().tolist()) for row, keep in zip(plain.text.values, plain.text.valid, strict=True)]
    for row, (words, keep) in enumerate(zip(other.text.values, other.text.valid, strict=True)):
        same = [texts[at] for at in np.flatnonzero(labels == labels[row])]
        assert tuple(words[keep].flatten().tolist()) in same, "of the same class"


def test_passes_draw_other_exemplars_and_the_same_pass_the_same(one_phase):
    trainer, _, _ = one_phase()
    exemplars, _ = exemplars_of(trainer, trainer.folder.memory, augmentations=("token_dropout",))
    one, same, other = (drawn(exemplars, epoch=epoch)[0] for epoch in (0, 0, 1))
    assert torch.equal(one.image.values, same.image.values)
    assert one.image.values.shape != other.image.values.shape or not torch.equal(one.image.values, other.image.values)


def test_the_fill_decides_how_many_tokens_exemplars_have(one_phase):
    trainer, _, _ = one_phase(keep_rule="top_k", keep_patches=3)
    for fill in ("drop", "zero", "mean", "class_mean"):
        exemplars, _ = exemplars_of(trainer, trainer.folder.memory, fill=fill)
        found, _ = drawn(exemplars)
        assert found.image.valid.sum(1).tolist() == [3 if fill == "drop" else 16] * 8, fill


def test_a_continued_run_knows_the_mean_colours_of_its_classes(tmp_path, backbone, data, monkeypatch):
    options = {"fill": "class_mean", "cache_features": False}
    expected = start(tmp_path / "whole", backbone, data, **options).run(Console(quiet=True))

    def cut_off(self, phase):
        raise KeyboardInterrupt if phase == 1 else None

    train = Trainer._train
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train", lambda self, phase: cut_off(self, phase) if phase else train(self, phase))
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path / "cut", backbone, data, **options).run(Console(quiet=True))
    found = start(tmp_path / "cut", backbone, data, **options).run(Console(quiet=True))
    assert [entry | {"seconds": 0} for entry in found] == [entry | {"seconds": 0} for entry in expected]


@pytest.mark.parametrize("recipe", ["raw", "foveated", "text"])
def test_a_memory_that_holds_nothing_yet_has_no_mean_colours(tmp_path, backbone, data, recipe):
    entries = start(tmp_path / "run", backbone, data, recipe=recipe, fill="class_mean").run(Console(quiet=True))
    assert entries[-1]["exemplars"] > 0


@pytest.mark.parametrize("kind", sorted(BACKBONES))
def test_every_family_of_backbones_learns(tmp_path, data, written, kind):
    names = {"vilt": ("flip", "text_exchange"), "bert": ("token_dropout",)}.get(kind, ("token_dropout",))
    options = {"recipe": "text" if kind == "bert" else "masked", "augmentations": names, "backbone": kind}
    trainer = start(tmp_path / "run", lambda: load(kind, written[kind], size=SIDE, blocks=1), data, **options)
    entries = trainer.run(Console(quiet=True))
    assert len(entries) == 3
    assert entries[-1]["exemplars"] > 0
    specs = ExemplarMemory.open(tmp_path / "run" / "memory").schema.modalities
    assert {*specs} == {*trainer.backbone.token_specs()}
    assert any(value.any() for name, value in trainer.learner.tuned().items() if "lora_B" in name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fill": "mask_token"}, "fill 'mask_token': Joint has no mask token here"),
        (
            {"fill": "thumbnail", "recipe": "half_jpeg"},
            "needs recipe 'masked', the only one that stores a thumbnail, got 'half_jpeg'",
        ),
        ({"fill": "grey"}, "fill: unknown 'grey'; choose one of"),
        ({"sampler": "best"}, "sampler: unknown 'best'; choose one of"),
        ({"selection": "best"}, "selection: unknown 'best'; choose one of"),
        ({"augmentations": ("flop",)}, "augmentations: unknown 'flop'; choose one of"),
        ({"scorer": "best"}, "scorer: unknown 'best'; choose one of"),
        ({"keep_rule": "best"}, "keep_rule: unknown 'best'; choose one of"),
        ({"text_rule": "best"}, "text_rule: unknown 'best'; choose one of"),
        ({"text_rule": "best", "recipe": "jpeg"}, "text_rule: unknown 'best'; choose one of"),
        ({"keep_rule": "top_k", "keep_patches": 17}, "keep_patches must be at most 16"),
        ({"modalities": "text"}, "recipe 'masked' stores pictures, and this learner sees none; use recipe 'text'"),
        ({"modalities": "image", "recipe": "text"}, "text exemplars need a learner that sees text"),
        ({"recipe": "foveated", "scale_shares": (0.5,)}, "one share of 0 or more for each of the 2 coarser scales"),
        ({"recipe": "foveated", "scale_factors": (4, 2)}, "falling sides of a patch"),
        ({"recipe": "foveated_picture", "coarse": 17}, r"coarse must be in 1\.\.16"),
        ({"recipe": "rate_aware", "qualities": (60, 60)}, "different qualities"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused_before_anything_is_computed(tmp_path, backbone, data, options, message):
    with pytest.raises(SchemaError, match=message):
        start(tmp_path / "run", backbone, data, **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_ratio": 0.0}, "keep_ratio must be above 0"),
        ({"keep_mass": 0.0}, "keep_mass must be above 0"),
        ({"keep_ratio": float("nan")}, "keep_ratio must be"),
        ({"scale_factors": (0, 1)}, "scale_factors must be numbers of 1 or more"),
        ({"scale_factors": ()}, "scale_factors must be numbers of 1 or more"),
        ({"recipe": "none", "new_stored_form": 0.5}, "recipe 'none' stores nothing"),
        ({"recipe": "none", "test_stored_form": True}, "recipe 'none' stores nothing"),
        ({"scorer": "grad_attention", "new_stored_form": 0.5}, "knows nothing of new classes"),
        ({"scorer": "grad_attention", "test_stored_form": True}, "would tell their labels"),
        ({"fill": "class_mean", "test_stored_form": True}, "would show their labels"),
        ({"modalities": "audio"}, r"modalities: unknown 'audio'; choose one of \['both', 'image', 'text'\]"),
        ({"quota": "equal"}, "quota: unknown 'equal'"),
        ({"new_masks": "block"}, "new_masks: unknown 'block'"),
        ({"selection_form": "half"}, "selection_form: unknown 'half'"),
        ({"text_direction": "up"}, "text_direction: unknown 'up'"),
        *(
            ({name: 0}, f"{name} must be 1 or more")
            for name in ("coarse", "exemplar_bytes", "keep_patches", "thumbnail")
        ),
        *(({name: -0.1}, f"{name} must be in 0") for name in ("augment_probability", "drop_ratio", "new_stored_form")),
    ],
    ids=str,
)
def test_a_configuration_refuses_what_can_never_work(options, message):
    with pytest.raises(SchemaError, match=message):
        TrainConfig(**({"first_classes": 2, "increments": (1,)} | options))


def test_a_backbone_with_a_mask_token_takes_the_fill(data, written):
    dinov2 = load("dinov2", written["dinov2"], size=SIDE, blocks=1)
    recipe = make_recipe(TrainConfig(first_classes=2, increments=(1,), recipe="masked", fill="mask_token"), dinov2)
    tokens = stored_form(dinov2, data[0], recipe, fill="mask_token")(np.arange(4))
    assert tokens.tokens["image"].unknown.any()
    assert dinov2(tokens).isfinite().all()
