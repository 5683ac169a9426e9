"""The lecture's perceptron, 784-784-10, on digits that are moved, turned and bent at random.

python -m experiments.perceptron_augmented --dataset=mnist --num_seeds=10

Result: test error 0.69 % (standard deviation 0.03, n=10), results/perceptron_augmented.json.
"""

import mnist_jax as mj

EXPERIMENT = mj.Experiment(
    "perceptron_augmented",
    model="perceptron",
    hidden_sizes=(784,),
    validation_fraction=0.0,
    rotation=10.0,
    zoom=0.1,
    translation=1.0,
    elastic=1.0,
    clean_fraction=0.1,
    loss="categorical_crossentropy",
    label_smoothing=0.1,
    optimizer="adam",
    learning_rate=0.002,
    schedule="cosine",
    batch_size=100,
    epochs=100,
)

if __name__ == "__main__":
    mj.main(EXPERIMENT, __doc__)
