import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax import neuron
from mnist_jax.errors import DataError


@pytest.mark.parametrize("seed", range(5))
def test_rosenblatt_ends_without_error_where_a_line_exists(seed):
    points = neuron.draw_points(jax.random.key(seed), 60)
    assert points.position.shape == (60, 2) and 0 < points.label.sum() < 60 and neuron.separable(points)
    lines = neuron.rosenblatt(points, 0.1, 1000)
    assert len(lines) <= 1000
    errors = [(neuron.answer(line, points.position) != points.label).sum() for line in lines]
    assert errors[-1] == 0 and min(errors[1:-1], default=1) > 0


def test_rosenblatts_rule_by_hand():
    points = neuron.Points(np.array([[1.0, 2.0], [3.0, 1.0]], np.float32), np.array([1, 0]))
    # All zero says 0: the first point is wrong and adds (1, 2, -1); then the second is wrong and takes (3, 1, -1).
    np.testing.assert_allclose(neuron.rosenblatt(points, 1.0, 1), [[0, 0, 0], [-2, 1, 0]])


def test_gradient_descent_lowers_the_loss_and_is_the_textbooks():
    points = neuron.draw_points(jax.random.key(1), 50)
    lines = neuron.gradient_descent(points, 1.0, 300)
    losses = [float(neuron.logistic_loss(line, points.position, points.label)) for line in lines]
    assert losses[0] == pytest.approx(np.log(2)) and losses[-1] < 0.3 and (np.diff(losses) < 0).all()
    inputs = np.concatenate([points.position, -np.ones((50, 1))], axis=1)
    np.testing.assert_allclose(lines[1], inputs.T @ (points.label - 0.5) / 50, rtol=1e-4)


@pytest.mark.parametrize("label", [0, 1])
def test_explained_numbers_are_jaxs(label):
    line, position = np.array([0.5, -0.25, 0.125]), np.array([0.75, -1.5])
    told = neuron.explain_step(line, position, label, rate=0.5)
    loss, grads = jax.value_and_grad(neuron.logistic_loss)(
        jnp.array(line), jnp.array(position)[None], jnp.array([label])
    )
    assert f"= {loss:.4f}\nbackward" in told
    for name, derivative, old in zip("ABC", grads, line, strict=True):
        assert any(f"dL/d{name} = dL/dz" in row and row.endswith(f"= {derivative:.4f}") for row in told.splitlines())
        assert any(
            f"new {name} =" in row and row.endswith(f"= {old - 0.5 * derivative:.4f}") for row in told.splitlines()
        )


def test_xor_has_no_line_but_a_network():
    points = neuron.draw_points(jax.random.key(7), 80, "xor")
    assert 20 < points.label.sum() < 60 and not neuron.separable(points)
    margin = neuron.train_network(jax.random.key(0), points, hidden=2, rate=0.1, epochs=500)
    np.testing.assert_array_equal(margin(points.position) > 0, points.label == 1)


def test_points_from_a_csv_file(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("x,y,class\n1, 2.5,0\n\n-3,4e1,1\n")
    points = neuron.read_points(path)
    np.testing.assert_allclose(points.position, [[1, 2.5], [-3, 40]])
    np.testing.assert_array_equal(points.label, [0, 1])


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
def test_a_bad_row_is_named(tmp_path, content, message):
    (tmp_path / "points.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        neuron.read_points(tmp_path / "points.csv")
