"""The accuracy of runs: phases as the console counts them, whole numbers, every run named."""

import pytest
from PIL import Image

from exmem.report.plots import draw_accuracy, plot_accuracy


def metrics(phases, *, drop=0.1, first=6):
    return [
        {
            "phase": phase,
            "classes": list(range(first if phase == 0 else 4)),
            "head": {"all": 0.9 - drop * phase},
            "ncm": {"all": 0.9 - drop * phase / 2},
        }
        for phase in range(phases)
    ]


def ticks(figure):
    figure.draw_without_rendering()
    low, high = figure.axes[0].get_xlim()
    return [text.get_text() for text in figure.axes[0].get_xticklabels() if low <= text.get_position()[0] <= high]


def named_directly(figure):
    return [[text.get_text() for text in axis.texts] for axis in figure.axes]


def test_phases_count_from_one_and_tell_the_classes_seen():
    figure = plot_accuracy({"masked": metrics(3)})
    assert ticks(figure) == ["1\n6", "2\n10", "3\n14"]
    assert figure.axes[0].get_lines()[0].get_xdata().tolist() == [1, 2, 3]
    assert figure.axes[0].get_xlabel() == "phase, and classes seen"


@pytest.mark.parametrize("phases", [1, 2, 7, 30])
def test_ticks_are_whole_phases(phases):
    labels = ticks(plot_accuracy({"a": metrics(phases), "b": metrics(phases, first=5)}))
    assert labels
    assert all(1 <= int(label) <= phases for label in labels)  # runs differ in their classes: no second line


def test_accuracy_is_in_percent_of_everything():
    figure = plot_accuracy({"masked": metrics(3)})
    figure.draw_without_rendering()
    assert figure.axes[0].get_ylim() == (0, 1)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()][::5] == ["0%", "100%"]


def test_runs_are_named_at_the_ends_of_their_lines_where_that_fits():
    figure = plot_accuracy({"$a_1": metrics(4, drop=0.05), "b": metrics(4, drop=0.2)})
    assert named_directly(figure) == [["$a_1", "b"], ["$a_1", "b"]]
    assert figure.legends == []


@pytest.mark.parametrize(
    "runs",
    [
        {"a": metrics(4), "b": metrics(4)},  # they end in one place
        {"a": metrics(4, drop=0.05), "b": metrics(3, drop=0.2)},  # one ends earlier
        {"a": metrics(4, drop=0.05), "b" * 40: metrics(4, drop=0.2)},
        {f"run {number}": metrics(9, drop=number / 400) for number in range(30)},
    ],
)
def test_runs_are_named_in_a_legend_outside_where_their_ends_do_not_fit(runs):
    figure = plot_accuracy(runs)
    figure.draw_without_rendering()
    assert named_directly(figure) == [[], []]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(runs)
    assert legend.get_window_extent().x0 >= max(axis.get_window_extent().x1 for axis in figure.axes)
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].get_lines()}
    assert len(looks) == len(runs)


def test_runs_without_metrics_and_accuracies_that_are_not_known_are_drawn(tmp_path):
    unknown = metrics(2)
    unknown[1]["ncm"]["all"] = float("nan")
    for at, runs in enumerate(({}, {"none yet": []}, {"unknown": unknown}, {"a": metrics(1), "unknown": unknown})):
        draw_accuracy(runs, tmp_path / f"{at}.png")
        with Image.open(tmp_path / f"{at}.png") as image:
            assert image.size == (1200, 528)


@pytest.mark.parametrize("number", [1, 30])
def test_letters_that_no_font_has_are_spelt_in_the_names_of_runs(number):
    runs = {f"run {at} \u0378": metrics(2) for at in range(number)}
    figure = plot_accuracy(runs)
    figure.draw_without_rendering()
    texts = figure.axes[0].texts if number == 1 else figure.legends[0].get_texts()
    assert [text.get_text() for text in texts] == [f"run {at} <U+0378>" for at in range(number)]
