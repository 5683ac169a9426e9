"""The image as tokens, patches or with --tokens=grey grey levels, embedded, with positions, through attention blocks.

python -m experiments.embedding --dataset=mnist --num_seeds=5

Claim: test error 1.91 % (standard deviation 0.05, n=5), results/embedding.json.
"""

from experiments import flags
from mnist_jax.config import Config

RECIPE = Config(
    experiment="embedding",
    model="embedding",
    tokens="patches",
    hidden=(128, 128),
    activation="gelu",
    optimizer="adam",
    learning_rate=2e-3,
    schedule="one_cycle",
    clip_norm=1.0,
    batch_size=200,
    epochs=10,
)

if __name__ == "__main__":
    flags.main(RECIPE, __doc__)
