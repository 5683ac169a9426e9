"""Softmax regression, one dense layer: the linear baseline.

python -m experiments.softmax --dataset=mnist --num_seeds=10

Result: test error 7.37 % (standard deviation 0.06, n=10), results/softmax.json.
"""

import mnist_jax as mj

EXPERIMENT = mj.Experiment(
    "softmax",
    model="softmax",
    optimizer="adam",
    learning_rate=1e-3,
    schedule="linear",
    batch_size=200,
    epochs=30,
)

if __name__ == "__main__":
    mj.main(EXPERIMENT, __doc__)
