"""The lecture's convolutional network: 32 filters of 5x5, max-pool, dropout 0.2, dense 128; Adam, 10 epochs.

python -m experiments.cnn --dataset=mnist --num_seeds=6

Result: test error 1.06 % (standard deviation 0.06, n=6), results/cnn.json.
Microbatches of 25 images fit a CPU's caches; on a GPU, try --microbatch_size=0.
"""

import mnist_jax as mj

EXPERIMENT = mj.Experiment(
    "cnn",
    model="cnn",
    filters=(32,),
    kernel_size=5,
    hidden_sizes=(128,),
    dropout=0.2,
    loss="sparse_categorical_crossentropy",
    optimizer="adam",
    learning_rate=1e-3,
    batch_size=200,
    microbatch_size=25,
    epochs=10,
)

if __name__ == "__main__":
    mj.main(EXPERIMENT, __doc__)
