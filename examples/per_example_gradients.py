"""Per-example gradients, clipped one by one and noised: a step of private SGD (M. Abadi et al., 2016)."""

import jax
import jax.numpy as jnp
import optax

import mnist_jax as mj

CLIP_NORM, NOISE = 1.0, 0.5
experiment = mj.Experiment(model="softmax", dataset="mnist5k")
model, optimizer, loss = mj.make_model(experiment.config, 10), optax.sgd(0.5), mj.make_loss(experiment.config)
grad_fn = mj.make_grad_fn(model, loss)  # (params, model_state, key, batch) -> gradients, (model_state, metrics)
per_example = jax.vmap(grad_fn, in_axes=(None, None, None, 0))


def train_step(state, batch):
    key = jax.random.fold_in(state.key, state.step)
    one_by_one = jax.tree.map(lambda leaf: leaf[:, None], batch)  # [B, 1, ...]: batches of one example
    grads, (_, metrics) = per_example(state.params, state.model_state, key, one_by_one)
    scale = jnp.minimum(1, CLIP_NORM / jax.vmap(optax.global_norm)(grads))
    grads = jax.tree.map(lambda leaf: jnp.tensordot(scale, leaf, axes=1), grads)
    grads = optax.tree.add_scale(grads, CLIP_NORM * NOISE, optax.tree.random_like(key, grads))
    grads = jax.tree.map(lambda leaf: leaf / batch.label.shape[0], grads)
    updates, opt_state = optimizer.update(grads, state.opt_state)
    params = optax.apply_updates(state.params, updates)
    state = state._replace(step=state.step + 1, params=params, opt_state=opt_state)
    return state, mj.sum_over_steps(metrics)


images, labels = map(jnp.asarray, experiment.splits["train"])
state = mj.init_state(model, optimizer, jax.random.key(0), images[:1])
epoch = jax.jit(lambda state: mj.train_epoch(train_step, state, images, labels, batch_size=100))
for _ in range(3):
    state, per_step = epoch(state)
    print(mj.compute(mj.sum_over_steps(per_step)))
