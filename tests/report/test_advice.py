"""The drawing of what a frozen probe measured: a line a recipe."""

from PIL import Image

from exmem.recipes import Recipe
from exmem.report.advice import draw_advice, plot_advice
from exmem.train.stored_sample import Measured


def ones(name, *means, recipe="half_jpeg"):
    budgets = (125_000, 250_000, 500_000)
    made = Recipe.of(recipe).refined(name=name)
    return [
        Measured(made, budget, 9, 50.0, () if mean is None else (mean - 0.1, mean + 0.1), 1.0)
        for budget, mean in zip(budgets, means, strict=True)
    ]


MEASURED = [
    ones("low", 0.2, 0.3, 0.4),
    ones("bits", 0.5, 0.6, 0.7, recipe="features"),
    ones("late", None, None, 0.65),
    ones("never", None, None, None),
]


def test_a_recipe_is_a_line_over_the_budgets_that_hold_an_exemplar_of_it():
    figure = plot_advice(MEASURED)
    (axis,) = figure.axes
    lines = {line.get_label(): line for line in axis.lines}
    assert list(lines) == ["bits (features)", "low (pixels)", "late (pixels)"]  # best first
    assert lines["bits (features)"].get_xdata().tolist() == [125_000, 250_000, 500_000]
    assert [round(value, 6) for value in lines["bits (features)"].get_ydata()] == [0.5, 0.6, 0.7]
    assert lines["late (pixels)"].get_xdata().tolist() == [500_000]
    assert lines["bits (features)"].get_linestyle() != lines["low (pixels)"].get_linestyle()
    assert axis.get_xticks().tolist() == [125_000, 250_000, 500_000]
    figure.canvas.draw()
    assert [label.get_text() for label in axis.get_xticklabels()] == ["125 kB", "250 kB", "500 kB"]


def test_more_recipes_than_colours_are_told_apart_by_their_markers():
    figure = plot_advice([ones(f"recipe {at}", 0.1, 0.2, 0.3) for at in range(12)])
    drawn = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(drawn) == 12


def test_it_is_a_png(tmp_path):
    draw_advice(MEASURED, tmp_path / "accuracy.png")
    with Image.open(tmp_path / "accuracy.png") as image:
        assert (image.format, image.size) == ("PNG", (1080, 600))
