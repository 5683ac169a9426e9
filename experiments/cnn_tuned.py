"""The lecture's convolutional network without augmentation, trained for longer at a one-cycle rate on smoothed labels.

python -m experiments.cnn_tuned --dataset=mnist --num_seeds=10

Result: test error 0.74 % (standard deviation 0.06, n=10), results/cnn_tuned.json.
"""

import mnist_jax as mj

EXPERIMENT = mj.Experiment(
    "cnn_tuned",
    model="cnn",
    filters=(32,),
    kernel_size=5,
    hidden_sizes=(128,),
    dropout=0.4,
    validation_fraction=0.0,
    loss="categorical_crossentropy",
    label_smoothing=0.1,
    optimizer="adamw",
    learning_rate=0.003,
    schedule="one_cycle",
    weight_decay=0.05,
    batch_size=100,
    microbatch_size=25,
    epochs=30,
)

if __name__ == "__main__":
    mj.main(EXPERIMENT, __doc__)
