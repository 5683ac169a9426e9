"""A deeper convolutional network, trained with Muon: three 3x3 convolutions per stage instead of two.

python -m experiments.deep_cnn_tuned --dataset=mnist --num_seeds=5

Result: test error 0.29 % (standard deviation 0.03, n=5), results/deep_cnn_tuned.json.
"""

import mnist_jax as mj

EXPERIMENT = mj.Experiment(
    "deep_cnn_tuned",
    model="deep_cnn",
    filters=(24, 48, 96),
    kernel_size=5,
    convs_per_stage=3,
    hidden_sizes=(),
    norm="batch",
    dropout=0.3,
    validation_fraction=0.0,
    rotation=15.0,
    zoom=0.1,
    translation=2.0,
    elastic=0.5,
    clean_fraction=0.1,
    loss="categorical_crossentropy",
    label_smoothing=0.1,
    optimizer="muon",
    learning_rate=0.02,
    schedule="one_cycle",
    batch_size=100,
    epochs=18,
)

if __name__ == "__main__":
    mj.main(EXPERIMENT, __doc__)
