"""One peer of experiments/perceptron.py: the same network in plain PyTorch, tensors in memory.

Run it in an environment of its own (`pip install torch numpy`):

    python benchmarks/peers/torch_perceptron.py --data_dir=FOLDER --epochs=6

It prints the median seconds of an epoch of 54,000 images at batch 200, the first epoch left out.
"""

import argparse
import gzip
import json
import pathlib
import statistics
import time

import numpy as np
import torch


def read_idx(path, header):
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header).copy()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_dir", type=pathlib.Path, required=True)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch_size", type=int, default=200)
    args = parser.parse_args()

    images = read_idx(args.data_dir / "train-images-idx3-ubyte.gz", 16).reshape(-1, 784)[:54000]
    x = torch.from_numpy(images).float() / 255
    y = torch.from_numpy(read_idx(args.data_dir / "train-labels-idx1-ubyte.gz", 8)[:54000]).long()
    torch.manual_seed(7)
    model = torch.nn.Sequential(torch.nn.Linear(784, 784), torch.nn.ReLU(), torch.nn.Linear(784, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    seconds = []
    for _ in range(args.epochs):
        start = time.perf_counter()
        for rows in torch.randperm(len(x)).split(args.batch_size):
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
        seconds.append(time.perf_counter() - start)
    print(
        json.dumps({"peer": f"torch {torch.__version__}", "seconds_per_epoch_median": statistics.median(seconds[1:])})
    )


if __name__ == "__main__":
    main()
