"""An exponential moving average of the parameters is evaluated, by metrics of one's own, beside the last ones."""

import jax
import jax.numpy as jnp
import optax

import mnist_jax as mj


def top_5(logits, batch):
    return mj.Mean.of((jnp.argsort(logits)[:, -5:] == batch.label[:, None]).any(-1), batch.mask)


def confidence(logits, batch):
    return mj.Mean.of(jax.nn.softmax(logits).max(-1), batch.mask)


experiment = mj.Experiment(hidden_sizes=(64,), dataset="mnist5k")
model, optimizer, loss = mj.make_model(experiment.config, 10), optax.adam(1e-2), mj.make_loss(experiment.config)
metrics = {"top_5": top_5, "confidence": confidence}
images, labels = map(jnp.asarray, experiment.splits["train"])
state = mj.init_state(model, optimizer, jax.random.key(0), images[:1], with_ema=True)
train_step = mj.make_train_step(model, optimizer, loss, metrics=metrics, ema_decay=0.99)
eval_step = mj.make_eval_step(model, loss, metrics=metrics)
epoch = jax.jit(lambda state: mj.train_epoch(train_step, state, images, labels, batch_size=100))
for _ in range(3):
    state, per_step = epoch(state)
for name, one in {"last": state, "averaged": mj.averaged(state)}.items():
    print(name, mj.compute(mj.evaluate(eval_step, one, *experiment.splits["test"])))
