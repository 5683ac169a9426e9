"""Softmax regression, one dense layer: the linear baseline.

python -m experiments.softmax --dataset=mnist
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
