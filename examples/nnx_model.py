"""A network written in Flax NNX, with batch norm and dropout, in the same train step."""

import jax
from flax import nnx

import mnist_jax as mj


class Network(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(784, 128, rngs=rngs)
        self.norm = nnx.BatchNorm(128, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.out = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, image):
        x = self.norm(self.hidden(image.reshape(image.shape[0], -1)))
        return self.out(self.dropout(jax.nn.relu(x)))


EXPERIMENT = mj.Experiment(
    "nnx_model", model=mj.from_nnx(lambda rngs: Network(rngs)), dataset="mnist5k", batch_size=100, epochs=5
)

if __name__ == "__main__":
    mj.main(EXPERIMENT, __doc__)
