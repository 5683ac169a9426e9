"""A deep convolutional network: batch norm, augmentation and a one-cycle learning rate, for people with a CPU.

python -m experiments.deep_cnn --dataset=mnist --num_seeds=10

Result: test error 0.32 % (standard deviation 0.04, n=10), results/deep_cnn.json.
"""

import mnist_jax as mj

EXPERIMENT = mj.Experiment(
    "deep_cnn",
    model="deep_cnn",
    filters=(24, 48, 96),
    kernel_size=5,
    hidden_sizes=(),
    norm="batch",
    dropout=0.3,
    rotation=10.0,
    zoom=0.1,
    translation=2.0,
    loss="categorical_crossentropy",
    label_smoothing=0.1,
    optimizer="adam",
    learning_rate=3e-3,
    schedule="one_cycle",
    batch_size=100,
    epochs=18,
)

if __name__ == "__main__":
    mj.main(EXPERIMENT, __doc__)
