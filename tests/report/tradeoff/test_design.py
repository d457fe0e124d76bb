"""Configurations of a trade-off: what they cross, and what is wrong with them."""

import re
from pathlib import Path

import pytest

from exmem.errors import SchemaError
from exmem.report.tradeoff import Design

ROOT = Path(__file__).parents[3]
SMALL = {"data": {"own": "folder"}, "recipes": ["half_jpeg", "features"], "budgets": ["20kB", "2 per class"]}


def design(**sections):
    return Design.of({**SMALL, **sections}, Path("/place"))


def test_cells_are_all_that_is_crossed_and_methods_that_a_probe_cannot_tell_apart_are_one_there():
    methods = {"one": {}, "two": {"loop": {"epochs": 2}}, "three": {"quota": "counts"}}
    both = design(seeds=[0, 1, 2], methods=methods, kinds=["probe", "trainer"])
    cells = list(both.crossed())
    assert len(cells) == 2 * 2 * 3 * (2 + 3)
    assert {(kind, method) for kind, _, method, *_ in cells} == {
        ("probe", "one"),
        ("probe", "three"),
        *(("trainer", method) for method in methods),
    }
    second = design(methods=methods, kinds={"probe": {"methods": "two"}})
    assert {method for _, _, method, *_ in second.crossed()} == {"two"}


def test_what_is_left_out_may_name_exceptions():
    cells = design(leave_out=[{"recipes": "half_jpeg", "but": {"budgets": "20 kB"}}]).crossed()
    assert [(recipe.name, str(budget)) for *_, recipe, budget, _ in cells] == [
        ("half_jpeg", "20.0 kB"),
        ("features", "20.0 kB"),
        ("features", "2 per class"),
    ]


def test_a_recipe_may_hold_as_many_as_another_in_a_probe_alone():
    recipes = ["half_jpeg", {"of": "raw", "name": "whole", "as_many_as": "half_jpeg"}]
    both = design(recipes=recipes, kinds=["probe", "trainer"])
    assert both.as_many_as == {"whole": "half_jpeg"}
    assert both.recipes[1].name == "whole"
    both.config("probe", both.data[0], "default", both.recipes[1], 0)
    with pytest.raises(SchemaError, match="recipe 'whole' is as many as another holds: only a probe takes a count"):
        both.config("trainer", both.data[0], "default", both.recipes[1], 0)


def test_a_kind_may_take_some_values_of_each_axis_and_others_may_be_left_out():
    some = design(
        seeds=[0, 1],
        kinds={"probe": None, "trainer": {"recipes": ["features"], "budgets": ["20 kB"], "seeds": 1}},
        leave_out=[{"kinds": "probe", "recipes": "half_jpeg"}, {"seeds": [0], "budgets": "2 per class"}],
    )
    assert [(kind, recipe.name, str(budget), seed) for kind, _, _, recipe, budget, seed in some.crossed()] == [
        ("probe", "features", "20.0 kB", 0),
        ("probe", "features", "20.0 kB", 1),
        ("probe", "features", "2 per class", 1),
        ("trainer", "features", "20.0 kB", 1),
    ]


def test_the_file_of_a_scenario_lies_beside_the_configuration_and_a_name_stays_one():
    for scenario, placed in (("order.yaml", "/place/order.yaml"), ("B0-Inc2", "B0-Inc2")):
        one = design(data={"own": {"folder": "f", "scenario": scenario}})
        assert one.config("trainer", one.data[0], next(iter(one.methods)), one.recipes[0], 0).data.scenario == placed


def test_options_come_from_the_base_then_the_data_then_the_method():
    one = design(
        data={"own": {"folder": "f", "modalities": "image", "class_seed": "seed", "backbone": {"image_size": 56}}},
        methods={"ridge": {"method": {"head": "ridge"}, "tuner": {"phases": "none"}}},
        base={"data": {"increments": [3], "modalities": "both"}, "tuner": {"blocks": 1}, "loop": {"epochs": 2}},
    )
    config = one.config("trainer", one.data[0], "ridge", one.recipes[0], 7)
    assert (config.seed, config.data.class_seed) == (7, 7)
    assert (config.data.modalities, config.data.increments) == ("image", (3,))
    assert (config.tuner.blocks, config.tuner.phases, config.method.head.name) == (1, "none", "ridge")
    assert (config.loop.epochs, config.backbone.image_size) == (2, 56)
    seen = one.config("probe", one.data[0], "ridge", one.recipes[0], 7)
    assert (seen.loop.epochs, seen.tuner.phases, seen.method.head.name) == (5, "none", "ridge")  # it trains nothing


def test_recipes_are_names_files_and_parts_that_may_begin_with_another_recipe(tmp_path):
    (tmp_path / "mine.yaml").write_text("image: none\n")
    recipes = ["half_jpeg", "mine.yaml", {"name": "whole", "image": "scaled:divisor=1"}]
    recipes.append({"of": "hidden", "name": "hidden_4", "keep": "top_k:k=4"})
    read = Design.of({**SMALL, "recipes": recipes}, tmp_path).recipes
    assert [recipe.name for recipe in read] == ["half_jpeg", "mine", "whole", "hidden_4"]
    assert [recipe.level for recipe in read] == ["pixels", "none", "pixels", "hidden"]
    assert read[3].keep.kwargs == {"k": 4}


def test_folders_lie_beside_the_configuration():
    read = design(data={"own": "images", "other": {"folder": "/far/images"}}).data
    assert [one.folder for one in read] == [Path("/place/images"), Path("/far/images")]


def test_a_name_on_the_hub_is_no_folder_beside_the_configuration():
    assert design(data={"own": "hf:owner/name:small"}).data[0].folder == Path("hf:owner/name:small")


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"recipe": ["raw"]}, "unknown keys ['recipe']; known are ['data', 'recipes', 'budgets'"),
        ({"recipes": []}, "recipes: expected one or more, got []"),
        ({"recipes": ["jepg"]}, "recipes[0]: unknown recipe 'jepg'; choose one of"),
        ({"recipes": ["raw", {"name": "raw", "image": "none"}]}, "recipes: 'raw' is there twice"),
        ({"recipes": {"raw": {}}}, "recipes: expected a list, got"),
        ({"data": ["folder"]}, "data: expected a mapping, got ['folder']"),
        ({"data": {"own": {"modalities": "image"}}}, "data.own: expected a folder, or a mapping with the key folder"),
        ({"data": {"own": {"folder": "f", "columns": 3}}}, "data.own: unknown keys ['columns']; known are ['folder'"),
        ({"budgets": ["20kB", 20_000]}, "budgets: '20.0 kB' is there twice"),
        ({"budgets": ["20 a class"]}, "budgets: expected bytes (250kB)"),
        ({"seeds": [0.5]}, "seeds must be an integer"),
        ({"methods": {"m": {"max_bytes": 5}}}, "methods.m: max_bytes is crossed; give it in recipes, budgets or seeds"),
        ({"methods": {"m": {"head": "ridge"}}}, "methods.m: unknown keys ['head']; known are ['quota'"),
        ({"kinds": ["train"]}, "kinds: unknown 'train'; choose of ['probe', 'trainer']"),
        ({"kinds": {"trainer": {"recipes": ["raw"]}}}, "kinds.trainer.recipes: unknown 'raw'; choose of ['half_jpeg'"),
        ({"kinds": {"trainer": {"what": 1}}}, "kinds.trainer: unknown keys ['what']"),
        ({"leave_out": [{"seeds": [5]}]}, "leave_out[0].seeds: unknown '5'; choose of ['0']"),
        ({"base": {"epochs": 3}}, "base: unknown keys ['epochs']"),
        ({"probe": {"share": 1.5}}, "probe.share must be above 0 and at most 1, got 1.5"),
        ({"probe": {"folds": 3}}, "probe.folds"),
        ({"probe": {"sample": 3}}, "probe: unknown keys ['sample']; known are ['share', 'folds']"),
        ({"leave_out": [{"but": {"seeds": [5]}}]}, "leave_out[0].but.seeds: unknown '5'; choose of ['0']"),
        (
            {"recipes": ["raw", {"of": "raw", "name": "x", "as_many_as": "jpeg"}]},
            "'x' holds as many as 'jpeg'",
        ),
        ({"recipes": [{"of": "raw", "name": "x", "as_many_as": "x"}]}, "recipes: 'x' holds as many as 'x'"),
        (
            {"best_of": {"best": ["half_jpeg", "jpeg"]}},
            "best_of.best: unknown 'jpeg'; choose of ['half",
        ),
        (
            {"recipes": ["raw", {"of": "raw", "name": "x", "as_many_as": "raw"}], "probe": {"folds": True}},
            "probe.folds: a recipe with as_many_as is measured on the test split; leave one of them out",
        ),
        ({"best_of": {"best": []}}, "best_of.best: expected one or more recipes, got none"),
        ({"probe": {"folds": True, "share": 0.5}}, "probe.share has no effect with probe.folds"),
        ({"leave_out": [{}]}, "kinds and leave_out leave no cell to measure; leave less out"),
        ({"recipes": [{"of": "raw", "name": ""}]}, "recipes: expected names of one line that can be read, got ''"),
        ({"methods": {"two\nlines": {}}}, "methods: expected names of one line that can be read, got 'two\\nlines'"),
        ({"best_of": {"features": ["half_jpeg"]}}, "best_of: 'features' is a recipe; choose another name"),
        ({"own": {"colour": {}}}, "own: unknown kinds ['colour']; known are ['augmentation', 'codec'"),
        ({"own": {"scorer": {"edges": "edges"}}}, "own.scorer.edges: expected module.name or module:name"),
        ({"own": {"scorer": {"edges": "no_such.edges"}}}, "scorer 'edges' cannot be imported from no_such:edges"),
    ],
)
def test_a_wrong_configuration_is_told_with_its_key_and_what_it_should_be(sections, told):
    with pytest.raises(SchemaError, match=re.escape(told)):
        design(**sections)


def test_a_wrong_file_is_named(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("data: {own: folder}\nrecipes: [raw]\n")
    with pytest.raises(SchemaError, match=re.escape(f"{file}: budgets: expected one or more, got None")):
        Design.read(file)


def test_the_configuration_of_the_benchmark_is_one():
    demo = Design.read(ROOT / "bench" / "configs" / "demo.yaml")
    assert (len(demo.recipes), len(demo.budgets), len(demo.seeds), len(demo.data)) == (27, 6, 3, 2)
    assert {kind for kind, *_ in demo.crossed()} == {"probe", "trainer"}


@pytest.mark.parametrize("file", sorted((ROOT / "bench" / "configs").glob("*.yaml")), ids=lambda file: file.stem)
def test_each_configuration_of_the_benchmarks_can_be_read(file):
    assert list(Design.read(file).crossed())


def test_a_number_in_the_place_of_seeds_is_refused_as_it_may_mean_two_things(base, tmp_path):
    with pytest.raises(SchemaError, match=r"seeds: expected a list, such as \[0, 1, 2\], got 3"):
        Design.of({**base, "seeds": 3}, tmp_path)


@pytest.mark.parametrize(
    ("method", "what"),
    [({"method": {"head": "linear"}}, "head 'linear'"), ({"selection": "entropy"}, "selection 'entropy'")],
)
def test_what_looks_at_a_head_that_was_trained_is_left_to_the_trainer(method, what):
    one = design(methods={"m": {**method, "tuner": {"phases": "all"}}}, recipes=["raw"])
    with pytest.raises(SchemaError, match=f"{what} needs the linear head, and a probe trains none; leave it to the"):
        one.config("probe", one.data[0], "m", one.recipes[0], 0)
    one.config("trainer", one.data[0], "m", one.recipes[0], 0)


def test_weights_in_folders_beside_the_configuration_are_found_from_anywhere(tmp_path):
    (tmp_path / "vit").mkdir()
    sections = {**SMALL, "base": {"backbone": {"family": "vit", "vision": "vit"}, "data": {"modalities": "image"}}}
    one = Design.of(sections, tmp_path)
    assert one.config("probe", one.data[0], "default", one.recipes[0], 0).backbone.vision == str(tmp_path / "vit")
    hub = Design.of({**sections, "base": {"backbone": {"family": "vit", "vision": "google/vit"}}}, tmp_path)
    assert hub.config("probe", hub.data[0], "default", hub.recipes[0], 0).backbone.vision == "google/vit"
