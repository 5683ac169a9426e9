"""Softmax regression, one dense layer: the linear baseline.

python -m experiments.softmax --dataset=mnist --num_seeds=5

Claim: test error 7.36 % (standard deviation 0.06, n=5), results/softmax.json.
"""

from experiments import flags
from mnist_jax.config import Config

RECIPE = Config(
    experiment="softmax",
    model="softmax",
    optimizer="adam",
    learning_rate=1e-3,
    schedule="linear",
    batch_size=200,
    epochs=30,
)

if __name__ == "__main__":
    flags.main(RECIPE, __doc__)
