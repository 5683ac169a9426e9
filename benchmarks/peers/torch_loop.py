"""PyTorch, tensors in memory; --variant: channels_last, compile or cuda_graphs, as its users tune. bf16 is autocast's.

On a GPU its float32 products are TF32, as JAX's are, and a CUDA graph holds a whole step. The model "example" is
pytorch/examples' MNIST network with its optimiser.

Source: https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html, and of the graph
https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture.
"""

import sys

import torch
from common import arguments, load, measure, peak_memory
from torch import nn


def build(model):
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


def captured(step, size, device):
    """One CUDA graph of step(rows), for `size` rows."""
    rows = torch.zeros(size, dtype=torch.long, device=device)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(rows)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(rows)

    def replay(new):
        rows.copy_(new)
        graph.replay()

    return replay


def main():
    args = arguments()
    images, labels = load(args)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    is_graph = args.variant == "cuda_graphs"
    if is_graph and device.type != "cuda":
        sys.exit("CUDA graphs need a GPU")
    x = torch.from_numpy(images).to(device).float().div(255).permute(0, 3, 1, 2).contiguous()
    y = torch.from_numpy(labels).to(device).long()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    model = build(args.model).to(device)
    if args.variant == "channels_last":
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    if args.model == "deep_cnn":
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    elif args.model == "example":
        optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, capturable=is_graph)
    net = torch.compile(model) if args.variant == "compile" else model
    is_bf16 = args.precision == "bf16"
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_bf16, cache_enabled=not is_graph)
    size, replay = args.batch_size, None

    def step(rows):
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
        loss.backward()
        optimizer.step()

    def train():
        nonlocal replay
        model.train()
        if is_graph and not replay:
            replay = captured(step, size, device)
        for rows in torch.randperm(len(x), device=device).split(size):
            (replay if replay and len(rows) == size else step)(rows)
        if device.type == "cuda":
            torch.cuda.synchronize()

    @torch.inference_mode()
    def evaluate():
        model.eval()
        with autocast:
            return sum(int((net(a).argmax(1) == b).sum()) for a, b in zip(x.split(size), y.split(size), strict=True))

    @torch.inference_mode()
    def predict():
        model.eval()
        with autocast:
            return [net(a).float().cpu().numpy() for a in x.split(size)]

    once = {"train": train, "evaluate": evaluate, "predict": predict}[args.task]
    if device.type == "cuda":
        name, peak = f"gpu {torch.cuda.get_device_name()}", torch.cuda.max_memory_allocated
    else:
        name, peak = "cpu", peak_memory
    measure(args, len(x), once, {"torch": torch.__version__}, name, peak)


if __name__ == "__main__":
    main()
