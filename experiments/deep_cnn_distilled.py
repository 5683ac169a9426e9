"""A deep convolutional network that learns from an ensemble of its like what to make of augmented digits.

python -m experiments.deep_cnn --dataset=mnist --num_seeds=5 --workdir=runs/teachers
python -m experiments.deep_cnn_distilled --dataset=mnist --teacher=runs/teachers --seed=12 --num_seeds=5
"""

import mnist_jax as mj

EXPERIMENT = mj.Experiment(
    "deep_cnn_distilled",
    model="deep_cnn",
    filters=(36, 72, 144),
    kernel_size=5,
    hidden_sizes=(),
    norm="batch",
    dropout=0.2,
    validation_fraction=0.0,
    rotation=10.0,
    zoom=0.1,
    translation=1.0,
    elastic=0.5,
    loss="categorical_crossentropy",
    optimizer="adam",
    learning_rate=0.01,
    schedule="one_cycle",
    batch_size=100,
    epochs=9,
    parts=mj.distill,
    config=mj.DistilledConfig(),
)

if __name__ == "__main__":
    mj.main(EXPERIMENT, __doc__)
