import numpy as np
import pytest

from benchmarks.plots import plot_scaling, plot_throughput
from mnist_jax import plots
from mnist_jax.types import Dataset

SCORES = {"count": 9, "loss": 0.5, "accuracy": 0.9}
DENSE = {"kernel": np.arange(12.0).reshape(6, 2)}


def make_records(seeds, epochs, train=SCORES, validation=SCORES):
    return [
        {"seed": seed, "epoch": 1 + epoch, "train": train, "validation": validation}
        for seed in range(seeds)
        for epoch in range(epochs)
    ]


@pytest.mark.parametrize(("seeds", "epochs", "lines"), [(1, 3, [2, 2]), (3, 3, [2 * 4, 2 * 4]), (0, 0, [0])])
def test_learning_curves_have_a_line_per_seed_and_their_mean(seeds, epochs, lines):
    assert [len(axes.lines) for axes in plots.learning_curves(make_records(seeds, epochs)).axes] == lines


def test_learning_curves_have_a_panel_per_metric():
    records = make_records(2, 2, SCORES | {"skipped": 0}, SCORES | {"top_5_accuracy": 1.0, "loss": None})
    panels = plots.learning_curves(records).axes
    assert [axes.get_ylabel() for axes in panels] == ["loss, in nats", "accuracy", "top 5 accuracy"]
    assert [axes.get_subplotspec().colspan.start for axes in panels] == [0, 1, 0]
    assert len(panels[2].lines) == 3 and np.isnan(panels[0].lines[-1].get_ydata()).all()


def test_mistakes_are_the_most_confident_ones_first():
    logits = np.array([[9.0, 0, 0], [0, 5.0, 0], [0, 0, 2.0], [3.0, 0, 0]])
    figure = plots.mistakes(np.zeros((4, 5, 5, 1), np.uint8), np.array([0, 0, 0, 1]), logits, ["a", "b", "c"])
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert [title[0] for title in titles] == ["b", "a", "c"] and titles[0].endswith("label a")


def test_the_confusion_matrix_shows_each_count():
    axes = plots.confusion(np.array([[5, 2], [0, 7]]), ["no", "yes"]).axes[0]
    assert sorted(text.get_text() for text in axes.texts) == ["2", "5", "7"]


def test_first_layer_gets_the_weights_of_the_pixels():
    dense = {"Dense_0": DENSE, "Dense_1": {"kernel": np.array([[1.0], [3.0]])}}
    np.testing.assert_array_equal(plots.first_layer(dense, (2, 3, 1))[0], DENSE["kernel"][:, 1].reshape(2, 3))
    convolution = {"Conv_0": {"kernel": np.random.rand(5, 5, 1, 4)}}
    np.testing.assert_array_equal(
        plots.first_layer(convolution, (28, 28, 1))[2], convolution["Conv_0"]["kernel"][:, :, 0, 2]
    )


@pytest.mark.parametrize(
    ("params", "image_shape"),
    [
        ({}, (28, 28, 1)),
        ([DENSE["kernel"]], (2, 3, 1)),
        ({"Dense_0": DENSE}, (28, 28, 1)),
        ({"Dense_0": DENSE}, (1, 2, 3)),
        ({"OptimizedLSTMCell_0": {}, "Dense_0": DENSE}, (2, 3, 1)),
        ({"GRUCell_0": {}, "Dense_0": DENSE}, (2, 3, 1)),
        ({"Conv_0": {"kernel": np.zeros((5, 5, 3, 4))}}, (28, 28, 1)),
    ],
    ids=["no layer", "not a dict", "not pixels", "colors", "rnn lstm", "rnn gru", "conv of features"],
)
def test_first_layer_is_none_if_it_does_not_see_pixels(params, image_shape):
    assert plots.first_layer(params, image_shape) is None


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_images_of_every_kind_are_written_without_a_screen(tmp_path, recwarn, caplog, dtype, channels):
    images = np.random.default_rng(0).normal(0, 50, (3, 8, 8, channels)).astype(dtype)
    plots.save(plots.image_grid(images, "abc", 2), tmp_path / "new" / "x.png", show=True)
    assert (tmp_path / "new" / "x.png").read_bytes().startswith(b"\x89PNG")
    assert not recwarn.list and not caplog.messages


LABELS = np.array([0, 1, 2, 2])


@pytest.mark.parametrize("labels", [LABELS, np.eye(3, dtype=np.float32)[LABELS]], ids=["integer", "one-hot"])
@pytest.mark.parametrize(("num_outputs", "plotted"), [(3, {"confusion", "mistakes", "filters"}), (2, set())])
def test_a_run_has_plots_of_what_it_is(tmp_path, monkeypatch, labels, num_outputs, plotted):
    images = np.zeros((4, 2, 3, 1), np.float32)
    dataset = Dataset(images, labels, images, labels, ("a", "b", "c"), "custom", "")
    matrices = []
    monkeypatch.setattr(plots, "confusion", lambda matrix, names: matrices.append(matrix) or plots.new_figure(1, 1))
    logits = np.eye(3)[[0, 1, 1, 2]][:, :num_outputs]
    plots.save_run_plots(tmp_path, make_records(1, 1), dataset, logits, {"Dense_0": DENSE})
    assert {path.stem for path in tmp_path.iterdir()} == {"learning_curves", *plotted}
    assert [matrix.tolist() for matrix in matrices] == [[[1, 0, 0], [0, 1, 0], [0, 1, 1]]] * bool(plotted)


def test_scaling_has_a_panel_of_time_and_one_of_memory_for_each_axis():
    points = [{"value": size, "seconds": size, "peak_memory_bytes": size * 2**20} for size in (1.0, 8.0)]
    by_axis = {"cnn seeds": [*points, {"value": 64.0, "failure": "out of memory"}], "cnn batch_size": points[:1]}
    panels = plot_scaling(by_axis).axes
    assert [axes.get_xlabel() for axes in panels] == ["cnn seeds"] * 2 + ["cnn batch_size"] * 2
    assert panels[1].get_ylabel().startswith("peak memory") and list(panels[1].lines[0].get_ydata()) == [1, 8]


def test_throughput_has_a_panel_of_bars_for_each_case():
    rates = {name: {"images_per_second": rate} for name, rate in {"mnist_jax": 3.0, "torch": 2.0}.items()}
    case = {"model": "cnn", "dtype": "float32", "task": "train", "batch_size": 200, "roofline_images_per_second": 9.0}
    panels = plot_throughput([case | {"implementations": rates}] * 8).axes
    assert len(panels) == 8 and [bar.get_height() for bar in panels[7].patches] == [3, 2]
