"""Mixup (H. Zhang et al., 2018): augmentation that mixes images and labels, which become soft."""

import jax

import mnist_jax as mj


def mixup(key, batch):
    order_key, weight_key = jax.random.split(key)
    order = jax.random.permutation(order_key, batch.image.shape[0])
    weight = jax.random.beta(weight_key, 0.2, 0.2, (batch.image.shape[0], 1))
    labels = jax.nn.one_hot(batch.label, 10)
    return batch._replace(
        image=weight[:, :, None, None] * batch.image + (1 - weight[:, :, None, None]) * batch.image[order],
        label=weight * labels + (1 - weight) * labels[order],
    )


EXPERIMENT = mj.Experiment(
    "mixup",
    augment=mixup,
    loss="categorical_crossentropy",  # takes integer labels, as in the test set, and soft ones
    dataset="mnist5k",
    batch_size=100,
    epochs=5,
)

if __name__ == "__main__":
    mj.main(EXPERIMENT, __doc__)
