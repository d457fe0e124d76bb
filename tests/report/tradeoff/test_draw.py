"""Images of frontiers."""

import matplotlib as mpl
import pytest
from PIL import Image

from exmem.report.tradeoff.draw import draw_frontiers, plot_frontier
from exmem.report.tradeoff.looks import looks_of
from tests.report.tradeoff.sample import NASTY, findings, row, sampled, table_of


def test_each_kind_data_set_method_and_measure_has_a_png_and_an_svg_that_say_when_by_no_date(tmp_path):
    known = findings(sampled(recipes=["raw", "hidden_4"], seeds=2, data=("image",)))
    paths = draw_frontiers(known, tmp_path / "one")
    assert [path.name for path in paths] == [
        "frontier-probe-image.png",
        "frontier-probe-image.svg",
        "frontier-trainer-image-finetuned.png",
        "frontier-trainer-image-finetuned.svg",
        "frontier-trainer-image-finetuned-last.png",
        "frontier-trainer-image-finetuned-last.svg",
    ]
    again = draw_frontiers(known, tmp_path / "two")
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    assert "dc:date" not in paths[1].read_text()
    with Image.open(paths[0]) as image:
        assert image.width > 1_000


def test_the_best_of_each_method_has_an_image_of_its_own(tmp_path):
    table = table_of(*(row(method=method, recipe=name) for method in ("one", "two") for name in ("raw", "text")))
    names = [path.name for path in draw_frontiers(findings(table), tmp_path)]
    assert [name for name in names if name.endswith(".png")] == [
        "frontier-probe-own-one.png",
        "frontier-probe-own-two.png",
        "frontier-probe-own-best_of_each.png",
    ]


def test_ticks_say_what_they_are():
    known = findings(table_of(row(average=0.05), row(average=0.25, budget="125 kB", bytes=90_000)))
    figure = plot_frontier(known.curves, known.looks)
    figure.canvas.draw()
    axis = figure.axes[0]
    ticks = zip(axis.get_yticks(), axis.get_yticklabels(), strict=True)
    assert all(float(label.get_text().rstrip("%")) == pytest.approx(100 * tick) for tick, label in ticks)


def test_a_recipe_over_its_budget_is_told_in_the_legend():
    known = findings(
        table_of(
            row(recipe="raw"), row(recipe="whole", bytes=900_000), row(recipe="whole", budget="125 kB", bytes=900_000)
        )
    )
    names = [text.get_text() for text in plot_frontier(known.curves, known.looks).legends[0].get_texts()]
    assert names[:2] == ["raw", "whole (over budget)"]


def test_bytes_are_on_a_logarithmic_axis_and_the_front_is_ringed():
    known = findings(sampled(data=("image",)))
    probe = known.curves[known.curves["kind"] == "probe"]
    figure = plot_frontier(probe, known.looks)
    axis = figure.axes[0]
    assert axis.get_xscale() == "log"
    figure.canvas.draw()
    assert "100 kB" in [label.get_text() for label in axis.get_xticklabels()]
    rings = next(line for line in axis.lines if line.get_marker() == "o" and line.get_markersize() == 11)
    front = probe[probe["front"]].sort_values("bytes")
    assert rings.get_xdata().tolist() == front["bytes"].tolist()
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    means = probe.groupby("recipe")["accuracy"].mean().sort_values(ascending=False)
    assert names[: len(means)] == means.index.tolist()
    assert names[len(means) :] == [
        "Pareto front",
        "stores pixels",
        "stores hidden tokens",
        "stores features",
        "stores text alone",
    ]


def test_files_of_names_that_look_alike_do_not_replace_each_other(tmp_path):
    table = table_of(row(data="a b"), row(data="a/b"), row(data="A_b"))
    paths = draw_frontiers(findings(table), tmp_path)
    assert len({str(path).lower() for path in paths}) == len(paths) == 6


@pytest.mark.parametrize("name", [NASTY, "$x_1$", "x" * 300, "名前", ""])
def test_a_name_is_drawn_as_it_is_and_one_point_of_one_seed_is_enough(tmp_path, name):
    draw_frontiers(findings(table_of(row(recipe=name, data=name))), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_no_two_of_35_recipes_look_the_same():
    looks = looks_of([f"r{at}" for at in range(35)], {})
    assert len({(look.colour, look.marker) for look in looks.values()}) == 35
    assert all(mpl.colors.is_color_like(look.colour) for look in looks.values())
