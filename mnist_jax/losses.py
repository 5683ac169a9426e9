"""Loss functions (logits, labels) -> per-example loss, and LOSSES, the table of them by Keras's names."""

import optax

LOSSES = {
    "sparse_categorical_crossentropy": optax.losses.softmax_cross_entropy_with_integer_labels,
}
