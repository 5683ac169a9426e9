"""PyTorch with all data in memory; bfloat16 by autocast; --variant: channels_last, compile or cuda_graphs.

On a GPU float32 matmuls use TF32, as JAX's do, and a CUDA graph holds a complete step. The model "example" is the
network of pytorch/examples' MNIST program with its optimizer.

Source: https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html; for CUDA graphs
https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import torch
from common import load_data, measure, parse_args, peak_memory_bytes
from torch import nn


def build_model(model: str) -> nn.Module:
    if model == "softmax":
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    if model == "perceptron":
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 784), nn.ReLU(), nn.Linear(784, 10))
    if model == "cnn":
        stage = (nn.Conv2d(1, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.2))
        return nn.Sequential(*stage, nn.Flatten(), nn.Linear(4608, 128), nn.ReLU(), nn.Linear(128, 10))
    if model == "example":
        convolutions = (nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2))
        dense = (nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10))
        return nn.Sequential(*convolutions, nn.Dropout(0.25), nn.Flatten(), *dense)
    layers, channels = [], 1
    for stage, filters in enumerate((32, 64, 128)):
        layers += [nn.MaxPool2d(2)] if stage else []
        for _ in range(2 if stage else 1):
            layers += [
                nn.Conv2d(channels, filters, 3 if stage else 5, padding="same", bias=False),
                nn.BatchNorm2d(filters),
                nn.ReLU(),
            ]
            channels = filters
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 7 * 7, 10))


def capture_cuda_graph(
    step: Callable[[torch.Tensor], None], batch_size: int, device: torch.device
) -> Callable[[torch.Tensor], None]:
    """Captures step(index) for `batch_size` indices in a CUDA graph."""
    index = torch.zeros(batch_size, dtype=torch.long, device=device)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(index)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(index)

    def replay(new_index):
        index.copy_(new_index)
        graph.replay()

    return replay


def make_optimizer(name: str, model: nn.Module, capturable: bool) -> torch.optim.Optimizer:
    if name == "deep_cnn":
        return torch.optim.SGD(model.parameters(), lr=0.01)
    if name == "example":
        return torch.optim.Adadelta(model.parameters(), lr=1.0)
    return torch.optim.Adam(model.parameters(), lr=1e-3, capturable=capturable)


def make_passes(
    args: argparse.Namespace, model: nn.Module, x: torch.Tensor, y: torch.Tensor, device: torch.device
) -> dict[str, Callable[[], Any]]:
    """Returns the function of each task that makes one pass over the data: x [N, 1, 28, 28] float32, y [N] int64."""
    is_graph, batch_size, replay = args.variant == "cuda_graphs", args.batch_size, None
    optimizer = make_optimizer(args.model, model, is_graph)
    net = torch.compile(model) if args.variant == "compile" else model
    is_bfloat16 = args.dtype == "bfloat16"
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_bfloat16, cache_enabled=not is_graph)

    def step(index):
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            loss = nn.functional.cross_entropy(net(x[index]), y[index])
        loss.backward()
        optimizer.step()

    def train():
        nonlocal replay
        model.train()
        if is_graph and not replay:
            replay = capture_cuda_graph(step, batch_size, device)
        for index in torch.randperm(len(x), device=device).split(batch_size):
            (replay if replay and len(index) == batch_size else step)(index)
        if device.type == "cuda":
            torch.cuda.synchronize()

    @torch.inference_mode()
    def evaluate():
        model.eval()
        with autocast:
            batches = zip(x.split(batch_size), y.split(batch_size), strict=True)
            return sum(int((net(images).argmax(1) == labels).sum()) for images, labels in batches)

    @torch.inference_mode()
    def predict():
        model.eval()
        with autocast:
            return [net(images).float().cpu().numpy() for images in x.split(batch_size)]

    return {"train": train, "evaluate": evaluate, "predict": predict}


def main() -> None:
    args = parse_args()
    images, labels = load_data(args)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if args.variant == "cuda_graphs" and device.type != "cuda":
        sys.exit("CUDA graphs need a GPU")
    x = torch.from_numpy(images).to(device).float().div(255).permute(0, 3, 1, 2).contiguous()
    y = torch.from_numpy(labels).to(device).long()
    name, get_peak_memory = "cpu", peak_memory_bytes
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        name, get_peak_memory = f"gpu {torch.cuda.get_device_name()}", torch.cuda.max_memory_allocated
    torch.manual_seed(0)
    model = build_model(args.model).to(device)
    if args.variant == "channels_last":
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    run_pass = make_passes(args, model, x, y, device)[args.task]
    measure(args, len(x), run_pass, {"torch": torch.__version__}, name, get_peak_memory)


if __name__ == "__main__":
    main()
