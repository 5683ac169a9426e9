"""PyTorch, tensors in memory; --variant: channels_last, compile or cuda_graphs, as its users tune. bf16 is autocast's.

The model "example" is pytorch/examples' MNIST network with its optimiser.

Source: https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html.
"""

import sys

import torch
from common import arguments, load, measure
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


def main():
    args = arguments()
    images, labels = load(args)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x = torch.from_numpy(images).to(device).float().div(255).permute(0, 3, 1, 2).contiguous()
    y = torch.from_numpy(labels).to(device).long()
    torch.manual_seed(0)
    model = build(args.model).to(device)
    if args.variant == "channels_last":
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    if args.model == "deep_cnn":
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    elif args.model == "example":
        optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    if args.variant == "cuda_graphs" and device.type != "cuda":
        sys.exit("CUDA graphs need a GPU")
    modes = {"compile": "default", "cuda_graphs": "reduce-overhead"}
    net = torch.compile(model, mode=modes[args.variant]) if args.variant in modes else model
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=args.precision == "bf16")
    size = args.batch_size

    def train():
        model.train()
        for rows in torch.randperm(len(x), device=device).split(size):
            optimizer.zero_grad(set_to_none=True)
            with autocast:
                loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
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
    name = f"gpu {torch.cuda.get_device_name()}" if device.type == "cuda" else "cpu"
    measure(args, len(x), once, {"torch": torch.__version__}, name)


if __name__ == "__main__":
    main()
