"""A grid of learning rates as one compiled program: the runs share their batches, since they share the key."""

import jax
import jax.numpy as jnp

import mnist_jax as mj

experiment = mj.Experiment(hidden_sizes=(64,), dataset="mnist5k", batch_size=100, epochs=5)
data = {split: experiment.splits[split] for split in ("train", "validation")}

rates = jnp.logspace(-4, -1, 8)
grid = jax.jit(jax.vmap(mj.make_run(experiment), in_axes=(None, 0, None)))
run = grid(jax.random.key(7), mj.Hyperparams(learning_rate=rates), data)
for rate, accuracy in zip(rates, run.metrics["validation"]["accuracy"], strict=True):
    print(f"learning rate {rate:.5f}: validation accuracy {accuracy:.4f}")
