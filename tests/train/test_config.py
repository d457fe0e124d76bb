"""The configuration of a run: documents and back, what is refused, and what may change when a run goes on."""

import dataclasses
import json

import pytest

from exmem.errors import SchemaError
from exmem.masking.scorers import SCORERS
from exmem.recipes import Recipe
from exmem.registry import Part
from exmem.train.config import BackboneConfig, DataConfig, LoopConfig, MethodConfig, TrainConfig, TunerConfig

NOT_DEFAULT = TrainConfig(
    recipe=Recipe.of("masked").refined(scorer="cls_attention:layers=[-3,-1]", text="all", extras=["logits"]),
    max_bytes="1.5GiB",
    seed=1,
    quota="counts",
    selection=Part.of("closest_to_mean"),
    ranked_form="stored",
    data=DataConfig(
        first_classes=3,
        increments=(2, 1),
        modalities="image",
        layout="imagenet_r:seed=1",
        image_column="photo",
        label_column="kind",
        split_column="fold",
        skip_bad=True,
    ),
    backbone=BackboneConfig(family="joint", vision="folder", image_size=112),
    tuner=TunerConfig(blocks=1, adapter="lora:rank=4,alpha=8"),
    method=MethodConfig(distill_weight=0.5, label_smoothing=0.1, dark_weight=0.5, aligned=True),
    loop=LoopConfig(
        augment=(Part.of("flip"), Part.of("token_dropout:ratio=0.25")),
        lr=1,
        warmup=0.1,
        clip_norm=2.5,
        stored_form=0.5,
        stored_masks="random",
    ),
)

OF_MODEL = TrainConfig(
    recipe=Recipe.of("hidden").refined(image="hidden:layer=3,fuse=true"),
    tuner=TunerConfig(phases="first"),
    method=MethodConfig(head=Part.of("ranpac:projection=64")),
    loop=LoopConfig(pruned="always"),
)


@pytest.mark.parametrize(
    "config",
    [TrainConfig(), NOT_DEFAULT, OF_MODEL, TrainConfig(recipe=Recipe.of("none"))],
    ids=["default", "other", "of a model", "none"],
)
def test_a_configuration_survives_json(config):
    document = json.loads(json.dumps(config.to_json()))
    assert TrainConfig.from_json(document) == config
    assert TrainConfig.from_json(document).to_json() == config.to_json()


def test_what_a_document_leaves_out_has_its_default():
    config = TrainConfig.from_json({"recipe": "masked", "loop": {"epochs": 2, "augment": "flip"}})
    assert config == TrainConfig(recipe=Recipe.of("masked"), loop=LoopConfig(epochs=2, augment=(Part.of("flip"),)))
    assert TrainConfig.from_json({}) == TrainConfig()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"epochs": 3}, r"configuration: unknown keys \['epochs'\]; known are .*'loop'"),
        ({"loop": {"epoch": 3}}, r"loop: unknown keys \['epoch'\]; known are \['epochs', 'batch'"),
        ({"recipe": {"scorers": "random"}}, r"recipe: unknown keys \['scorers'\]; known are \['name', 'image'"),
        ({"recipe": {"keep": "top_k:n=3"}}, r"keep rule 'top_k' has no option \['n'\]; it has \['k'\]"),
        ({"loop": {"augment": ["flip:chance=1"]}}, r"augmentation 'flip' has no option \['chance'\]; it has .*'prob"),
        ({"selection": {"name": "herding", "k": 1}}, r"selection .*'herding' has no option \['k'\]; it has \[\]"),
    ],
)
def test_an_unknown_key_is_refused_with_those_that_are_known(document, message):
    with pytest.raises(SchemaError, match=message):
        TrainConfig.from_json(document)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "configuration"),
        ({"loop": 3}, "loop: expected a mapping of options, got 3"),
        ({"loop": {"epochs": "3"}}, "loop.epochs: expected int, got '3'"),
        ({"loop": {"epochs": True}}, "loop.epochs: expected int, got True"),
        ({"loop": {"epochs": 2.5}}, "loop.epochs: expected int, got 2.5"),
        ({"loop": {"lr": "fast"}}, "loop.lr: expected float, got 'fast'"),
        ({"loop": {"keep_hidden": 1}}, "loop.keep_hidden: expected bool, got 1"),
        ({"loop": {"augment": [3]}}, "loop.augment: expected NAME, NAME:OPTION=VALUE"),
        ({"data": {"increments": ["2"]}}, "data.increments: expected int, got '2'"),
        ({"data": {"first_classes": 1.0}}, "data.first_classes: expected int or nothing, got 1.0"),
        ({"data": {"modalities": 3}}, "data.modalities: unknown 3; choose one of"),
        ({"max_bytes": [64]}, "max_bytes: expected str, got [64]"),
        ({"selection": 3}, "selection: expected NAME, NAME:OPTION=VALUE"),
        ({"recipe": 3}, "recipe: expected"),
        ({"recipe": "best"}, "unknown recipe 'best'; choose one of"),
    ],
    ids=str,
)
def test_a_value_of_another_kind_is_named(document, message):
    with pytest.raises(SchemaError) as refused:
        TrainConfig.from_json(document)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("group", "options", "message"),
    [
        ("data", {"increments": ()}, "data.increments must be one or more numbers"),
        ("data", {"increments": (0,)}, "data.first_classes and data.increments"),
        ("data", {"first_classes": 0}, "data.first_classes and data.increments"),
        ("data", {"skip_bad": 1}, "data.skip_bad: expected bool, got 1"),
        ("data", {"layout": "other"}, "unknown layout 'other'; choose one of ['auto', 'cifar100', 'cub', 'food101',"),
        ("data", {"layout": "cub:text=1"}, "layout 'cub' has no option ['text']; it has ['caption']"),
        ("data", {"modalities": "audio"}, "data.modalities: unknown 'audio'; choose one of ['both', 'image', 'text']"),
        ("backbone", {"family": "gpt"}, "backbone.family: unknown 'gpt'; choose one of"),
        ("backbone", {"image_size": 0}, "backbone.image_size"),
        ("tuner", {"adapter": "lora:rank=0"}, "rank"),
        ("tuner", {"adapter": "dora:alpha=0"}, "alpha"),
        ("tuner", {"adapter": "lora:ranks=2"}, "tuner 'lora' has no option ['ranks']; it has ['alpha', 'rank']"),
        ("tuner", {"adapter": "adapters"}, "unknown tuner 'adapters'; choose one of"),
        ("method", {"distill_weight": -1.0}, "method.distill_weight must be 0 or more, got -1.0"),
        ("method", {"temperature": 0.0}, "method.temperature must be above 0, got 0.0"),
        ("loop", {"epochs": 0}, "loop.epochs"),
        ("loop", {"num_workers": -1}, "loop.num_workers"),
        ("loop", {"accumulation": 0}, "loop.accumulation"),
        ("loop", {"ema": 1.0}, "loop.ema must be 0 or more and below 1, got 1.0"),
        ("loop", {"precision": "float8"}, "loop.precision: unknown 'float8'; choose one of ['bfloat16', 'float32']"),
        ("method", {"corrected": 0.6}, "method.corrected must be 0 or more and at most 0.5, got 0.6"),
        ("loop", {"lr": float("nan")}, "loop.lr must be above 0, got nan"),
        ("loop", {"stored_form": 2.0}, "loop.stored_form must be 0 or more and at most 1, got 2.0"),
        ("loop", {"random_ratio": 0.0}, "loop.random_ratio must be above 0 and at most 1, got 0.0"),
        ("loop", {"stored_masks": "block"}, "loop.stored_masks: unknown 'block'"),
        ("loop", {"sampler": "best"}, "unknown sampler 'best'; choose one of"),
        ("loop", {"augment": ["flop"]}, "unknown augmentation 'flop'; choose one of"),
        ("loop", {"augment": ["flip:probability=2"]}, "probability must be in 0..1, got 2"),
    ],
    ids=str,
)
def test_a_value_out_of_range_is_named(group, options, message):
    with pytest.raises(SchemaError) as refused:
        TrainConfig.from_json({group: options})
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"quota": "equal"}, "quota: unknown 'equal'; choose one of"),
        ({"ranked_form": "half"}, "ranked_form: unknown 'half'; choose one of"),
        ({"selection": "best"}, "'best'; choose one of"),
        ({"max_bytes": "much"}, "much"),
        ({"seed": -1}, "seed"),
        ({"recipe": {"scorer": "best"}}, "unknown scorer 'best'; choose one of"),
        ({"recipe": {"image": "none", "text": "none", "scorer": "best"}}, "unknown scorer 'best'; choose one of"),
        ({"recipe": {"keep": "best"}}, "unknown keep rule 'best'; choose one of"),
        ({"recipe": {"text": "best"}}, "unknown text rule 'best'; choose one of"),
        ({"recipe": {"fill": "grey"}}, "unknown fill 'grey'; choose one of"),
        ({"recipe": {"codec": "gif"}}, "codec: unknown 'gif'; choose one of"),
        ({"recipe": {"fill": "thumbnail"}}, "fill 'thumbnail' needs a stored one"),
        ({"recipe": {"image": {"name": "scales", "shares": [0.5]}}}, "one share of 0 or more for each of the 2"),
        ({"recipe": {"image": {"name": "rate", "qualities": [60, 60]}}}, "different qualities"),
        ({"recipe": "none", "loop": {"stored_form": 0.5}}, "recipe 'none' stores nothing"),
        ({"recipe": "none", "loop": {"test_stored_form": True}}, "recipe 'none' stores nothing"),
        (
            {"recipe": {"image": "patches", "scorer": "grad_attention"}, "loop": {"stored_form": 0.5}},
            "knows nothing of new classes",
        ),
        (
            {"recipe": {"image": "patches", "scorer": "grad_attention"}, "loop": {"test_stored_form": True}},
            "would tell their labels",
        ),
        (
            {"recipe": {"image": "patches", "fill": "class_mean"}, "loop": {"test_stored_form": True}},
            "would show their labels",
        ),
    ],
    ids=str,
)
def test_what_can_never_work_is_refused(document, message):
    with pytest.raises(SchemaError) as refused:
        TrainConfig.from_json(document)
    assert message in str(refused.value)


WITHOUT_EFFECT = [
    ({"recipe": "none", "quota": "counts"}, "quota 'counts' has no effect: recipe 'none' stores nothing"),
    ({"recipe": "none", "selection": "random"}, "selection 'random' has no effect: recipe 'none' stores nothing"),
    ({"recipe": "none", "ranked_form": "stored"}, "ranked_form 'stored' has no effect"),
    ({"recipe": "none", "loop": {"augment": ["flip"]}}, "loop.augment ['flip'] has no effect: recipe 'none'"),
    ({"recipe": "none", "loop": {"sampler": "uniform"}}, "loop.sampler 'uniform' has no effect"),
    (
        {"recipe": {"image": "scaled", "fill": "mean"}},
        "recipe.fill 'mean' has no effect: image 'scaled' drops no tokens",
    ),
    ({"loop": {"stored_masks": "random"}}, "loop.stored_masks 'random' has no effect: loop.stored_form is 0"),
    ({"loop": {"random_ratio": 0.5}}, "loop.random_ratio 0.5 has no effect: no masks are random"),
    ({"method": {"distill_weight": 0, "temperature": 3.0}}, "method.temperature 3.0 has no effect"),
    ({"recipe": "features", "method": {"aligned": True}}, "method.aligned True has no effect: no phase but the first"),
    ({"tuner": {"phases": "first"}, "method": {"asymmetric": True}}, "method.asymmetric True has no effect"),
    ({"recipe": "features", "loop": {"warmup": 0.1}}, "loop.warmup 0.1 has no effect: no phase is tuned"),
    ({"method": {"head": "slda", "label_smoothing": 0.1}}, "method.label_smoothing 0.1 has no effect"),
    ({"method": {"dark_update": True}}, "method.dark_update True has no effect: method.dark_weight is 0"),
    ({"recipe": "features", "loop": {"ema": 0.9}}, "loop.ema 0.9 has no effect: no phase is tuned"),
    ({"recipe": "none", "loop": {"candidates": 2}}, "loop.candidates 2 has no effect: recipe 'none' stores nothing"),
    ({"recipe": "none", "method": {"head": "linear", "corrected": 0.1}}, "method.corrected 0.1 has no effect"),
    ({"backbone": {"family": "bert", "vision": "a"}}, "backbone.vision 'a' has no effect: bert sees no images"),
    ({"backbone": {"family": "clip", "text": "a"}}, "backbone.text 'a' has no effect: clip has no text encoder apart"),
]


@pytest.mark.parametrize(("document", "message"), WITHOUT_EFFECT, ids=str)
def test_an_option_without_effect_is_refused(document, message):
    with pytest.raises(SchemaError) as refused:
        TrainConfig.from_json(document)
    assert message in str(refused.value)


NEEDS_LINEAR = "needs the linear head, which is trained with the blocks; tuner.phases is"
PRUNED = "shows the learner kept tokens only: that needs image hidden, or patches"
SUMS = ("ridge", "slda", "ranpac:projection=64", "nearest_mean")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            {"recipe": "features", "tuner": {"phases": "all"}},
            "stores features, which tuning makes stale; use tuner.phas",
        ),
        *(
            ({"method": {"head": head}, "tuner": {"phases": "all"}}, "keeps sums of features, which tuning makes wrong")
            for head in SUMS
        ),
        ({"method": {"head": "linear"}, "tuner": {"phases": "first"}}, f"head 'linear' {NEEDS_LINEAR} first, use all"),
        ({"method": {"head": "linear"}, "recipe": "features"}, f"head 'linear' {NEEDS_LINEAR} none, use all"),
        ({"method": {"dark_weight": 0.5}}, "method.dark_weight 0.5 needs the logits of exemplars"),
        ({"loop": {"joint": True}}, "loop.joint learns from all examples of earlier phases and stores none, recipe"),
        (
            {"recipe": "none", "loop": {"joint": True}, "method": {"aligned": True}},
            "loop.joint learns all classes anew",
        ),
        ({"method": {"corrected": 0.1}}, "method.corrected corrects the linear head, and 'logistic' classifies"),
        ({"method": {"head": "cosine", "aligned": True}}, "method.aligned shortens weights, whose length a cosine"),
        (
            {"method": {"head": "linear", "corrected": 0.1}, "loop": {"augment": ["flip"]}},
            "method.corrected holds exemplars back from replay, which needs loop.keep_hidden",
        ),
        ({"method": {"head": "cosine:scale=3"}}, "method.head 'cosine' has no options, got ['scale']"),
        ({"method": {"head": "cosine"}, "recipe": "features"}, f"head 'cosine' {NEEDS_LINEAR} none, use all"),
        ({"recipe": {"extras": ["logits"]}, "tuner": {"phases": "none"}}, f"extras 'logits' {NEEDS_LINEAR} none"),
        ({"recipe": {"extras": ["logits"]}, "method": {"head": "ridge"}}, f"extras 'logits' {NEEDS_LINEAR} none"),
        ({"selection": "loss", "tuner": {"phases": "first"}}, f"selection 'loss' {NEEDS_LINEAR} first"),
        ({"selection": "entropy", "recipe": "features"}, f"selection 'entropy' {NEEDS_LINEAR} none"),
        (
            {"recipe": {"image": "patches", "scorer": "grad_attention"}, "tuner": {"phases": "first"}},
            f"scorer 'grad_attention' {NEEDS_LINEAR} first",
        ),
        *(
            (
                {"recipe": "hidden", "loop": {"augment": ["token_dropout", name]}},
                f"augmentation '{name}' needs what recip",
            )
            for name in ("flip", "colour_jitter", "image_exchange", "patch_paste")
        ),
        (
            {"recipe": "features", "loop": {"augment": ["token_dropout"]}},
            "augmentation 'token_dropout' needs what recipe",
        ),
        ({"recipe": "features", "loop": {"stored_form": 0.5}}, "stores features: no example can be shown as stored"),
        ({"recipe": "features", "loop": {"test_stored_form": True}}, "no example can be shown as stored"),
        ({"recipe": "features", "ranked_form": "stored"}, "no example can be shown as stored"),
        ({"recipe": "half_jpeg", "loop": {"pruned": "always"}}, PRUNED),
        ({"recipe": "features", "loop": {"pruned": "always"}}, PRUNED),
        ({"recipe": "none", "loop": {"pruned": "always"}}, PRUNED),
        (
            {"recipe": {"image": "patches", "text": "lost_patches"}, "loop": {"pruned": "always"}},
            "text all or none",
        ),
        *(  # what is replayed of these has all tokens
            ({"recipe": recipe, "loop": {"pruned": "always"}}, "loop.pruned")
            for recipe in ({"image": "smoothed"}, {"image": "scales"}, {"image": "patches", "fill": "mean"})
        ),
        ({"recipe": "hidden", "loop": {"keep_hidden": False}}, PRUNED),
        ({"recipe": {"image": "hidden", "text": "lost_patches"}}, PRUNED),
        (
            {"loop": {"pruned": "sometimes"}},
            "loop.pruned: unknown 'sometimes'; choose one of ['always', 'auto', 'never']",
        ),
        ({"tuner": {"phases": "last"}}, "tuner.phases: unknown 'last'; choose one of ['all', 'auto', 'first', 'none']"),
        ({"method": {"head": "forest"}}, "method.head: unknown 'forest'; choose one of"),
        ({"method": {"head": "ridge:depth=3"}}, "head 'ridge' has no option ['depth']"),
        ({"method": {"head": "ranpac:projection=0"}}, "projection"),
        ({"method": {"head": "linear:depth=3"}}, "linear"),
    ],
    ids=str,
)
def test_what_is_stored_when_blocks_are_tuned_and_what_classifies_go_together(document, message):
    with pytest.raises(SchemaError) as refused:
        TrainConfig.from_json(document)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("document", "phases"),
    [
        ({}, "all"),
        ({"recipe": "hidden"}, "all"),
        ({"method": {"head": "linear"}}, "all"),
        ({"recipe": "features"}, "none"),
        *(({"method": {"head": head}}, "none") for head in SUMS),
        ({"recipe": "features", "tuner": {"phases": "first"}}, "first"),
        ({"method": {"head": "ridge"}, "tuner": {"phases": "first"}}, "first"),
        ({"tuner": {"phases": "none"}}, "none"),
    ],
    ids=str,
)
def test_blocks_are_tuned_in_all_phases_unless_that_would_be_wrong(document, phases):
    config = TrainConfig.from_json(document)
    assert config.tuned_phases == phases
    tunes = {"all": [True, True, True], "first": [True, False, False], "none": [False, False, False]}[phases]
    assert [config.tunes(phase) for phase in range(3)] == tunes


def test_a_fill_of_whole_images_is_taken_where_something_drops_tokens():
    recipe = {"image": "scaled", "fill": "mean"}
    for loop in ({"augment": ["token_dropout"]}, {"stored_form": 0.5, "stored_masks": "random"}):
        assert TrainConfig.from_json({"recipe": recipe, "loop": loop}).recipe.fill == Part("mean")


def test_only_a_scorer_that_explains_the_class_is_kept_from_new_examples():
    loop = {"stored_form": 0.5, "test_stored_form": True}
    for name in SCORERS:
        if name != "grad_attention":
            TrainConfig.from_json({"recipe": {"image": "patches", "scorer": name}, "loop": loop})
    TrainConfig.from_json(
        {
            "recipe": {"image": "patches", "scorer": "grad_attention"},
            "loop": {"stored_form": 1, "stored_masks": "random"},
        }
    )


APART = {"data.scenario", "loop.joint", "method.corrected"}  # stand beside few others


def _changed(document):
    """Every option of a configuration by its dotted name, and the document with another value there."""
    others = {"str": "other", "int": 7, "bool": False, "float": 0.25, "NoneType": 5}
    choices = {
        "quota": "frequency",
        "ranked_form": "full",
        "data.modalities": "both",
        "backbone.family": "clip",
        "loop.stored_masks": "scores",
        "loop.sampler": "uniform",
        "max_bytes": "1MB",
        "selection": "random",
        "recipe.image": "scales",
        "recipe.scorer": "centre",
        "recipe.keep": "cumulative:mass=0.5",
        "recipe.text": "none",
        "recipe.codec": "raw",
        "recipe.fill": "zero",
        "recipe.extras": ["features", "logits"],
        "loop.augment": [],
        "data.increments": [4],
        "data.layout": "cub",
        "loop.keep_hidden": False,
        "loop.pruned": "never",
        "loop.test_stored_form": True,
        "backbone.text": "other",
        "tuner.phases": "all",
        "tuner.adapter": "ssf",
        "tuner.charged": True,
        "method.head": "linear",
        "method.asymmetric": True,
        "method.aligned": False,
        "method.dark_update": True,
        "loop.precision": "bfloat16",
        "loop.compile": True,
    }
    for key, value in document.items():
        if not isinstance(value, dict):
            yield key, document | {key: choices.get(key) or others[type(value).__name__]}
            continue
        for field, old in value.items():
            name = f"{key}.{field}"
            if name in APART:
                continue
            new = choices[name] if name in choices else others[type(old).__name__]
            yield name, document | {key: value | {field: new}}


def test_differences_name_the_dotted_option_and_both_values():
    other = dataclasses.replace(NOT_DEFAULT, loop=dataclasses.replace(NOT_DEFAULT.loop, lr=0.1))
    assert NOT_DEFAULT.differences(other) == ["loop.lr: 1, 0.1"]
    assert NOT_DEFAULT.differences(NOT_DEFAULT) == []
    refined = dataclasses.replace(NOT_DEFAULT, recipe=NOT_DEFAULT.recipe.refined(scorer="random", fill="zero"))
    assert [line.partition(":")[0] for line in NOT_DEFAULT.differences(refined)] == ["recipe.fill", "recipe.scorer"]


def test_hidden_tokens_workers_and_the_name_of_the_recipe_may_change_and_nothing_else():
    document = json.loads(json.dumps(NOT_DEFAULT.to_json()))
    changes = dict(_changed(document))
    assert len(changes) > 40
    same = {name for name, changed in changes.items() if not NOT_DEFAULT.differences(TrainConfig.from_json(changed))}
    assert same == {"loop.accumulation", "loop.compile", "loop.keep_hidden", "loop.num_workers", "recipe.name"}
    plain = {"recipe": "none", "method": {"head": "linear"}}
    for one, two in (
        (plain, plain | {"loop": {"joint": True}}),
        ({"method": {"head": "linear"}}, {"method": {"head": "linear", "corrected": 0.1}}),
    ):
        (told,) = TrainConfig.from_json(one).differences(TrainConfig.from_json(two))
        assert told.partition(": ")[0] in APART
    for name, changed in changes.items():
        told = NOT_DEFAULT.differences(TrainConfig.from_json(changed))
        assert name in same or [line.partition(": ")[0] for line in told] == [name]


SCENARIO = {"data": {"scenario": "B0-Inc10"}}


def test_a_scenario_survives_json_and_is_told_where_it_differs():
    config = TrainConfig.from_json(SCENARIO)
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    other = TrainConfig.from_json({"data": {"scenario": "B50-Inc5", "class_seed": 0}})
    assert config.differences(other) == ["data.class_seed: 1993, 0", "data.scenario: 'B0-Inc10', 'B50-Inc5'"]
    file, moved = (TrainConfig.from_json({"data": {"scenario": name}}) for name in ("a.json", "there/b.yaml"))
    assert file.differences(moved) == [], "the folder of a run compares what is in them"
    assert [line.partition(":")[0] for line in file.differences(config)] == ["data.class_seed", "data.scenario"]


def test_the_seed_of_the_classes_is_that_of_pilot_with_a_scenario_by_name_and_0_without():
    seeds = {
        str(data): DataConfig(**data).order_seed
        for data in ({}, {"class_seed": 3}, {"scenario": "B0-Inc2"}, {"scenario": "B0-Inc2", "class_seed": 0})
    }
    assert [*seeds.values()] == [0, 3, 1993, 0]
    assert DataConfig(scenario="s.json").order_seed is None
    without, zero = TrainConfig(), TrainConfig.from_json({"data": {"class_seed": 0}})
    assert without.differences(zero) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        *(
            ({"scenario": name}, "data.scenario: expected a name such as B0-Inc10 or B50-Inc5, or a file that ends in")
            for name in ("B0", "b0-inc10", "B0-Inc0", "B-Inc5", "B0-Inc10 ", "inc10", "", "order.txt")
        ),
        ({"scenario": "B0-Inc2", "first_classes": 2}, "data.first_classes 2 beside data.scenario 'B0-Inc2', which"),
        ({"scenario": "B0-Inc2", "increments": [2]}, "data.increments [2] beside data.scenario 'B0-Inc2', which"),
        ({"scenario": "s.yml", "first_classes": 2}, "data.first_classes 2 beside data.scenario 's.yml', which says"),
        ({"scenario": "s.json", "class_seed": 0}, "data.class_seed 0 beside data.scenario 's.json', which says that"),
        ({"scenario": True}, "data.scenario: expected str or nothing, got True"),
    ],
    ids=str,
)
def test_a_scenario_that_is_none_or_is_said_twice_is_refused(data, message):
    with pytest.raises(SchemaError) as refused:
        TrainConfig.from_json({"data": data})
    assert message in str(refused.value)


def test_numbers_as_files_hold_them_are_taken():
    config = TrainConfig.from_json({"max_bytes": 300_000, "loop": {"lr": "1e-3", "epochs": 2.0}})
    assert (config.max_bytes, config.loop.lr, config.loop.epochs) == ("300000", 1e-3, 2)
    with pytest.raises(SchemaError, match=r"data\.class_seed must be an integer of 0"):
        TrainConfig.from_json({"data": {"class_seed": -1}})


@pytest.mark.parametrize(
    ("recipe", "pruned", "prunes"),
    [
        ("hidden", "auto", True),
        ("hidden", "never", False),
        ("half_jpeg", "auto", False),
        ("features", "auto", False),
        ("none", "auto", False),
        ({"image": "patches"}, "auto", False),
        ({"image": "patches"}, "always", True),
    ],
    ids=str,
)
def test_kept_tokens_alone_are_seen_where_hidden_ones_are_stored_unless_it_is_said(recipe, pruned, prunes):
    assert TrainConfig.from_json({"recipe": recipe, "loop": {"pruned": pruned}}).prunes == prunes
