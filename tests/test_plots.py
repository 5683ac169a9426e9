import numpy as np
import pytest

from mnist_jax import plots


def records(seeds, epochs):
    scores = {"loss": 0.5, "accuracy": 0.9}
    return [
        {"seed": seed, "epoch": 1 + e, "train": scores, "validation": scores}
        for seed in range(seeds)
        for e in range(epochs)
    ]


@pytest.mark.parametrize(("seeds", "epochs", "lines"), [(1, 3, 2), (3, 3, 2 * 4), (0, 0, 0)])
def test_learning_curves_have_a_line_a_seed_and_their_mean(seeds, epochs, lines):
    axes = plots.learning_curves(records(seeds, epochs)).axes
    assert [len(one.lines) for one in axes] == [lines, lines]


def test_mistakes_are_the_surest_wrong_answers_first():
    logits = np.array([[9.0, 0, 0], [0, 5.0, 0], [0, 0, 2.0], [3.0, 0, 0]])
    figure = plots.mistakes(np.zeros((4, 5, 5, 1), np.uint8), np.array([0, 0, 0, 1]), logits, ["a", "b", "c"])
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert [title[0] for title in titles] == ["b", "a", "c"] and titles[0].endswith("label a")


def test_the_confusion_matrix_shows_each_count():
    axes = plots.confusion(np.array([[5, 2], [0, 7]]), ["no", "yes"]).axes[0]
    assert sorted(text.get_text() for text in axes.texts) == ["2", "5", "7"]


def test_first_layer_finds_what_the_units_see():
    kernel = np.arange(12.0).reshape(6, 2)
    dense = {"Dense_0": {"kernel": kernel}, "Dense_1": {"kernel": np.array([[1.0], [3.0]])}}
    np.testing.assert_array_equal(plots.first_layer(dense, (2, 3, 1))[0], kernel[:, 1].reshape(2, 3))
    convolution = {"Conv_0": {"kernel": np.random.rand(5, 5, 1, 4)}}
    np.testing.assert_array_equal(
        plots.first_layer(convolution, (28, 28, 1))[2], convolution["Conv_0"]["kernel"][:, :, 0, 2]
    )
    assert plots.first_layer({}, (28, 28, 1)) is None


def test_a_picture_is_written_without_a_screen(tmp_path):
    plots.save(plots.pictures(np.zeros((3, 8, 8, 1), np.uint8), "abc", 2), tmp_path / "new" / "x.png", show=True)
    assert (tmp_path / "new" / "x.png").read_bytes().startswith(b"\x89PNG")


def test_growth_has_a_panel_of_time_and_one_of_memory_for_each_axis():
    points = [{"value": size, "seconds": size, "peak_memory_bytes": size * 2**20} for size in (1.0, 8.0)]
    told = {"cnn seeds": [*points, {"value": 64.0, "failure": "too much"}], "cnn batch_size": points[:1]}
    drawn = plots.growth(told).axes
    assert [axes.get_xlabel() for axes in drawn] == ["cnn seeds"] * 2 + ["cnn batch_size"] * 2
    assert drawn[1].get_ylabel().startswith("peak memory") and list(drawn[1].lines[0].get_ydata()) == [1, 8]


def test_speeds_has_a_group_of_bars_for_each_row():
    contestants = {name: {"images_per_second": speed} for name, speed in {"ours": 3.0, "torch": 2.0}.items()}
    row = {"model": "cnn", "precision": "f32", "task": "train", "batch_size": 200, "floor_images_per_second": 9.0}
    drawn = plots.speeds([row | {"contestants": contestants}] * 8).axes
    assert len(drawn) == 8 and [bar.get_height() for bar in drawn[7].patches] == [3, 2]
