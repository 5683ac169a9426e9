"""A grid of learning rates as one compiled program: the runs share their batches, since they share the key."""

import jax
import jax.numpy as jnp

import mnist_jax as mj

experiment = mj.Experiment(hidden_sizes=(64,), dataset="mnist5k", batch_size=100, epochs=5)
images, labels = map(jnp.asarray, experiment.splits["train"])


def run(key, hparams):
    parts = experiment.build(hparams)

    def epoch(state, _):
        return mj.train_epoch(parts.train_step, state, images, labels, batch_size=experiment.config.batch_size)

    state, _ = jax.lax.scan(epoch, parts.init(key), length=experiment.config.epochs)
    return mj.evaluate(parts.eval_step, state, *experiment.splits["validation"])


rates = jnp.logspace(-4, -1, 8)
grid = jax.jit(jax.vmap(run, in_axes=(None, 0)))
accuracy = grid(jax.random.key(7), mj.Hyperparams(learning_rate=rates))["accuracy"]
for rate, total, count in zip(rates, *accuracy, strict=True):
    print(f"learning rate {rate:.5f}: validation accuracy {total / count:.4f}")
