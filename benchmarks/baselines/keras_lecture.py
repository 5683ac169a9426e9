"""The lecture's perceptron and convolutional network in Keras, over several seeds: the baselines of experiments/.

Run it in an environment of its own (`pip install keras tensorflow-cpu`):

    python benchmarks/baselines/keras_lecture.py --model=perceptron --data_dir=FOLDER --num_seeds=10

It trains on the lecture's 54,000 images (numpy's RandomState(42).permutation, equal to scikit-learn's
train_test_split(test_size=0.1, random_state=42)), evaluates the 10,000 test images once per seed after the
last epoch, and prints one JSON object. Source: the lecture's program; https://keras.io/api/.
"""

import argparse
import gzip
import json
import pathlib
import statistics
import time

import keras
import numpy as np
from keras import layers

BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}


def read_idx(path: pathlib.Path, header_bytes: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header_bytes)


def load_split(folder: pathlib.Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns images [N, 28, 28, 1] float32 in [0, 1] and one-hot labels [N, 10]; part is train or t10k."""
    images = read_idx(folder / f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28, 1).astype("float32") / 255
    return images, keras.utils.to_categorical(read_idx(folder / f"{part}-labels-idx1-ubyte.gz", 8), 10)


def build_model(name: str) -> keras.Model:
    net = [layers.Input((28, 28, 1))]
    if name == "perceptron":
        net += [layers.Flatten(), layers.Dense(784, kernel_initializer="normal", activation="relu")]
        net += [layers.Dense(10, kernel_initializer="normal", activation="softmax")]
    else:
        net += [layers.Conv2D(32, (5, 5), activation="relu"), layers.MaxPooling2D(), layers.Dropout(0.2)]
        net += [layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dense(10, activation="softmax")]
    return keras.Sequential(net)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=["perceptron", "cnn"], default="perceptron")
    parser.add_argument("--data_dir", type=pathlib.Path, required=True)
    parser.add_argument("--num_seeds", type=int, default=10)
    parser.add_argument("--first_seed", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args()

    x, y = load_split(args.data_dir, "train")
    x_test, y_test = load_split(args.data_dir, "t10k")
    train = np.random.RandomState(42).permutation(len(x))[len(x) // 10 :]
    x, y = x[train], y[train]

    errors, seconds = [], []
    for seed in range(args.first_seed, args.first_seed + args.num_seeds):
        keras.utils.set_random_seed(seed)
        model = build_model(args.model)
        model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
        start = time.perf_counter()
        model.fit(x, y, epochs=args.epochs, batch_size=200, verbose=0)
        seconds.append((time.perf_counter() - start) / args.epochs)
        accuracy = model.evaluate(x_test, y_test, batch_size=1000, verbose=0)[1]
        errors.append(round(100 - 100 * accuracy, 2))
        print(seed, errors[-1], flush=True)
    result = {
        "model": args.model,
        "implementation": f"Keras {keras.__version__} ({BACKENDS[keras.backend.backend()]})",
        "test_error_percent": errors,
        "mean": statistics.mean(errors),
        "std": statistics.stdev(errors) if len(errors) > 1 else None,
        "n": len(errors),
        "seconds_per_epoch_median": statistics.median(seconds),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
