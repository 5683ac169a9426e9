import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from benchmarks.plots import plot_scaling, plot_throughput
from mnist_jax import figures, plots
from mnist_jax.datasets import CLASS_NAMES
from mnist_jax.first_layer import FirstLayer
from mnist_jax.types import Dataset

SCORES = {"count": 9, "loss": 0.5, "accuracy": 0.9}


def check_layout(figure):
    """Draws a figure, and checks that no text is cut off or covers another one, and that no legend covers a panel."""
    FigureCanvasAgg(figure).draw()
    texts = [figure._suptitle] if figure._suptitle else []
    texts += [text for axes in figure.axes for text in (axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts)]
    for axes in (axes for axes in figure.axes if axes.axison):
        for axis, (low, high), i in ((axes.xaxis, axes.get_xlim(), 0), (axes.yaxis, axes.get_ylim(), 1)):
            low, high = sorted((low, high))  # a tick beyond the limits has a label that is not drawn
            texts += [text for text in axis.get_ticklabels() if low <= text.get_position()[i] <= high]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    for box in boxes:
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    for legend, axes in itertools.product(figure.legends, figure.axes):
        assert not legend.get_window_extent().overlaps(axes.get_window_extent())


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
    assert [axes.get_ylabel() for axes in panels] == ["loss, mean per image", "accuracy", "top 5 accuracy"]
    assert [axes.get_subplotspec().colspan.start for axes in panels] == [0, 1, 0]
    assert len(panels[2].lines) == 3 and np.isnan(panels[0].lines[-1].get_ydata()).all()


@pytest.mark.parametrize(("seeds", "epochs"), [(1, 2), (3, 2), (3, 12), (0, 0)])
def test_learning_curves_say_what_is_what(seeds, epochs):
    figure = plots.learning_curves(make_records(seeds, epochs), "perceptron on mnist5k")
    check_layout(figure)
    assert figure.get_suptitle() == "Learning curves of perceptron on mnist5k"
    texts = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    several = [f"{split}, {what}" for split in ("train", "validation") for what in ("each seed", "mean of 3 seeds")]
    assert texts == {0: [], 1: ["train", "validation"], 3: several}[seeds]
    assert all(tick == round(tick) for axes in figure.axes if epochs for tick in axes.get_xticks())


def test_mistakes_are_the_most_confident_ones_first():
    logits = np.array([[9.0, 0, 0], [0, 5.0, 0], [0, 0, 2.0], [3.0, 0, 0]])
    figure = plots.mistakes(np.zeros((4, 5, 5, 1), np.uint8), np.array([0, 0, 0, 1]), logits, ["a", "b", "c"])
    titles = [text.get_text() for text in figure.axes[0].texts]
    assert [title[:4] for title in titles] == ["1: b", "3: a", "2: c"] and titles[0].endswith("label a")
    assert figure.get_suptitle().startswith("3 mistakes in 4 images (75.00 %);")


@pytest.mark.parametrize("count", [1, 3, 24])
def test_long_class_names_have_room(count):
    names = CLASS_NAMES["fashion_mnist"]
    labels = np.arange(40) % 10
    check_layout(plots.mistakes(np.zeros((40, 28, 28, 1)), labels, np.eye(10)[(labels + 1) % 10], names, count))
    check_layout(plots.confusion(np.eye(10, dtype=int), names))
    check_layout(plots.class_grid(np.zeros((40, 28, 28, 1)), labels, names))
    check_layout(plots.image_grid(np.zeros((count, 28, 28, 1)), ["IMG_2026…ong.png\nAnkle boot (99.9 %)"] * count, 4))


def test_the_confusion_matrix_shows_each_count():
    figure = plots.confusion(np.array([[5, 2], [0, 7]]), ["no", "yes"])
    check_layout(figure)
    assert sorted(text.get_text() for text in figure.axes[0].texts) == ["2", "5", "7"]
    assert "2 of 14 images (14.29 %) are mistakes" in figure.get_suptitle()


@pytest.mark.parametrize("is_output", [True, False])
def test_filters_share_a_scale_and_name_the_class_that_a_unit_stands_for(is_output):
    weights = np.random.default_rng(0).normal(size=(3, 4, 5)) * np.array([1.0, 5.0, 0.1])[:, None, None]
    panel, scale = plots.filters(FirstLayer(weights, is_output), ("a", "b", "c")).axes
    assert [text.get_text() for text in panel.texts] == (["a", "b", "c"] if is_output else [""] * 3)
    limits = {image.get_clim() for image in panel.images}
    ((low, high),) = limits
    assert low == -high and scale.get_ylabel() == "weight"


@pytest.mark.parametrize("is_output", [True, False])
@pytest.mark.parametrize("units", [1, 10, 70])
def test_filters_of_any_number_have_room(units, is_output):
    check_layout(plots.filters(FirstLayer(np.ones((units, 3, 3)), is_output), [f"class {i}" for i in range(units)]))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_images_of_every_kind_are_written_without_a_screen(tmp_path, recwarn, caplog, dtype, channels):
    images = np.random.default_rng(0).normal(0, 50, (3, 8, 8, channels)).astype(dtype)
    figures.save(plots.image_grid(images, "abc", 2), tmp_path / "new" / "x.png", show=True)
    assert (tmp_path / "new" / "x.png").read_bytes().startswith(b"\x89PNG")
    assert not recwarn.list and not caplog.messages


LABELS = np.array([0, 1, 2, 2])


def predict_linearly(params, images):
    return images.reshape(len(images), -1) @ params["kernel"]


@pytest.mark.parametrize("labels", [LABELS, np.eye(3, dtype=np.float32)[LABELS]], ids=["integer", "one-hot"])
@pytest.mark.parametrize(("num_outputs", "plotted"), [(3, {"confusion", "mistakes", "filters"}), (2, set())])
def test_a_run_has_plots_of_what_it_is(tmp_path, monkeypatch, labels, num_outputs, plotted):
    images = np.zeros((4, 2, 3, 1), np.float32)
    dataset = Dataset(images, labels, images, labels, ("a", "b", "c"), "custom", "")
    matrices = []
    monkeypatch.setattr(plots, "confusion", lambda matrix, names: matrices.append(matrix) or figures.new_figure(1, 1))
    logits = np.eye(3)[[0, 1, 1, 2]][:, :num_outputs]
    params = {"kernel": np.random.default_rng(0).normal(size=(6, 3))}
    plots.save_run_plots(tmp_path, make_records(1, 1), dataset, logits, params, "x", predict_linearly)
    assert {path.stem for path in tmp_path.iterdir()} == {"learning_curves", *plotted}
    assert [matrix.tolist() for matrix in matrices] == [[[1, 0, 0], [0, 1, 0], [0, 1, 1]]] * bool(plotted)


def test_scaling_has_a_panel_of_time_and_one_of_memory_for_each_axis():
    points = [{"value": size, "seconds": size, "peak_memory_bytes": size * 2**20} for size in (1.0, 8.0)]
    by_axis = {"cnn seeds": [*points, {"value": 64.0, "failure": "out of memory"}], "cnn batch_size": points[:1]}
    panels = plot_scaling(by_axis).axes
    assert [axes.get_xlabel() for axes in panels] == ["seeds"] * 2 + ["batch size"] * 2
    assert panels[1].get_ylabel().startswith("peak memory") and list(panels[1].lines[0].get_ydata()) == [1, 8]


@pytest.mark.parametrize("count", [1, 2, 8])
def test_throughput_has_a_panel_of_bars_for_each_case(count):
    rates = {name: {"images_per_second": rate} for name, rate in {"mnist_jax": 3e5, "torch_compile": 2e5}.items()}
    case = {"model": "cnn", "dtype": "float32", "task": "train", "batch_size": 200, "roofline_images_per_second": 9e5}
    figure = plot_throughput([case | {"implementations": rates}] * count)
    check_layout(figure)
    assert len(figure.axes) == count and [bar.get_width() for bar in figure.axes[-1].patches] == [2e5, 3e5]
    (legend,) = figure.legends
    assert ["measured matmul rate" in text.get_text() for text in legend.get_texts()] == [True]
