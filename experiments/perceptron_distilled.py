"""The lecture's perceptron, 784-784-10, taught by better networks what to make of augmented digits.

python -m experiments.cnn_augmented --dataset=mnist --workdir=runs/teacher
python -m experiments.perceptron_distilled --dataset=mnist --teacher=runs/teacher --num_seeds=5
"""

import mnist_jax as mj

EXPERIMENT = mj.Experiment(
    "perceptron_distilled",
    model="perceptron",
    hidden_sizes=(784,),
    validation_fraction=0.0,
    rotation=10.0,
    zoom=0.1,
    translation=1.0,
    elastic=1.0,
    clean_fraction=0.1,
    loss="categorical_crossentropy",
    optimizer="adam",
    learning_rate=0.002,
    schedule="cosine",
    batch_size=100,
    epochs=100,
    parts=mj.distill,
    config=mj.DistilledConfig(),
)

if __name__ == "__main__":
    mj.main(EXPERIMENT, __doc__)
