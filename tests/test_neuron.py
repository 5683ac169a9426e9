import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from mnist_jax.errors import DataError
from mnist_jax.lecture import neuron
from mnist_jax.lecture.plots import decision_boundary


@pytest.mark.parametrize("seed", range(5))
def test_the_perceptron_rule_ends_without_errors_if_a_line_exists(seed):
    points = neuron.sample_points(jax.random.key(seed), 60)
    assert points.inputs.shape == (60, 2) and 0 < points.labels.sum() < 60 and neuron.is_linearly_separable(points)
    lines = neuron.perceptron_rule(points, 0.1, 1000)
    assert len(lines) <= 1000
    errors = [(neuron.predict(line, points.inputs) != points.labels).sum() for line in lines]
    assert errors[-1] == 0 and min(errors[1:-1], default=1) > 0


def test_the_perceptron_rule_by_hand():
    points = neuron.Points(np.array([[1.0, 2.0], [3.0, 1.0]], np.float32), np.array([1, 0]))
    # Zeros predict 0: the first point is wrong and adds (1, 2, -1); then the second is wrong and subtracts (3, 1, -1).
    np.testing.assert_allclose(neuron.perceptron_rule(points, 1.0, 1), [[0, 0, 0], [-2, 1, 0]])


def test_gradient_descent_lowers_the_loss_by_the_textbooks_gradient():
    points = neuron.sample_points(jax.random.key(1), 50)
    lines = neuron.gradient_descent(points, 1.0, 300)
    losses = [float(neuron.logistic_loss(line, points.inputs, points.labels)) for line in lines]
    assert losses[0] == pytest.approx(np.log(2)) and losses[-1] < 0.3 and (np.diff(losses) < 0).all()
    augmented = np.concatenate([points.inputs, -np.ones((50, 1))], axis=1)
    np.testing.assert_allclose(lines[1], augmented.T @ (points.labels - 0.5) / 50, rtol=1e-4)


@pytest.mark.parametrize("label", [0, 1])
def test_explained_numbers_are_those_of_jax(label):
    line, point = np.array([0.5, -0.25, 0.125]), np.array([0.75, -1.5])
    text = neuron.explain_step(line, point, label, learning_rate=0.5)
    loss, grads = jax.value_and_grad(neuron.logistic_loss)(jnp.array(line), jnp.array(point)[None], jnp.array([label]))
    assert f"= {loss:.4f}\nbackward" in text
    for name, derivative, old in zip("ABC", grads, line, strict=True):
        assert any(f"dL/d{name} = dL/dz" in row and row.endswith(f"= {derivative:.4f}") for row in text.splitlines())
        assert any(
            f"new {name} =" in row and row.endswith(f"= {old - 0.5 * derivative:.4f}") for row in text.splitlines()
        )


def test_xor_needs_a_network():
    points = neuron.sample_points(jax.random.key(7), 80, "xor")
    assert 20 < points.labels.sum() < 60 and not neuron.is_linearly_separable(points)
    decision_function = neuron.train_network(jax.random.key(0), points, hidden_size=2, learning_rate=0.1, epochs=500)
    np.testing.assert_array_equal(decision_function(points.inputs) > 0, points.labels == 1)


def test_points_from_a_csv_file(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("x,y,class\n1, 2.5,0\n\n-3,4e1,1\n")
    points = neuron.read_points(path)
    np.testing.assert_allclose(points.inputs, [[1, 2.5], [-3, 40]])
    np.testing.assert_array_equal(points.labels, [0, 1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1,2,0\n1,2\n", "row 2 is '1,2'"),
        ("1,2,0\n1,b,1\n", "row 2 is '1,b,1'"),
        ("1,2,0\n3,4,2\n", "row 2 .* the class must be 0 or 1"),
        ("1,2,0\nnan,4,1\n", "row 2"),
        ("1,2,0\n1,3,0\n", "two classes are needed"),
        ("", "two classes are needed"),
    ],
)
def test_an_invalid_row_is_named(tmp_path, content, message):
    (tmp_path / "points.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        neuron.read_points(tmp_path / "points.csv")


@pytest.mark.parametrize(
    ("last_line", "is_outside"),
    [((1, 0, 0.5), False), ((1, 0, 50), True), ((0, 0, 1), True)],
    ids=["inside", "outside", "none"],
)
def test_the_plot_says_which_line_is_the_last_and_that_it_is_outside(last_line, is_outside):
    inputs, labels = np.array([[0.0, 0.0], [1.0, 1.0], [0.3, 0.2]]), np.array([0, 1, 0])
    lines = np.array([[1, 1, 0.1 * i] for i in range(500)] + [last_line])
    figure = decision_boundary(inputs, labels, lines, title="perceptron rule")
    FigureCanvasAgg(figure).draw()
    (axes,), (legend,) = figure.axes, figure.legends
    assert axes.get_title().startswith("perceptron rule") and ("outside" in axes.get_title()) == is_outside
    texts = ["class 0", "class 1", "after earlier epochs (1 of 26)", "after the last epoch"]
    assert [text.get_text() for text in legend.get_texts()] == (texts if any(last_line[:2]) else texts[:3])
    assert len(axes.lines) <= 21 and all(line.get_zorder() < axes.collections[0].get_zorder() for line in axes.lines)
    assert not legend.get_window_extent().overlaps(axes.get_window_extent())


@pytest.mark.parametrize("height", [1.0, 100.0])
def test_the_plot_of_a_network_explains_its_areas(height):
    inputs, labels = np.array([[0, 0], [1, height]]), np.array([0, 1])
    figure = decision_boundary(inputs, labels, np.zeros((0, 3)), lambda points: points[:, 0] - 0.5)
    (legend,) = figure.legends
    assert "predicted" in legend.get_title().get_text() and len(legend.get_texts()) == 2
    assert figure.axes[0].get_aspect() == (1.0 if height == 1 else "auto")
