"""Loads a data set, tells its facts, and draws the lecture's four images; --grid adds a sheet of each class.

python -m experiments.load_data --dataset=mnist5k
"""

import dataclasses

from experiments import flags
from mnist_jax.config import Config, choice
from mnist_jax.files import expanded


@dataclasses.dataclass(frozen=True)
class Choices:
    dataset: str = choice("mnist", Config.__dataclass_fields__["dataset"].metadata["help"])
    data_dir: str = choice("", Config.__dataclass_fields__["data_dir"].metadata["help"])
    workdir: str = choice("runs/load_data", "folder for the pictures")
    grid: bool = choice(False, "also draw a labelled sheet of each class")
    show: bool = choice(True, "show the pictures where there is a screen")


def main(values, rest):
    flags.refuse(rest)
    import numpy as np

    from mnist_jax import data, plots

    dataset = data.load_dataset(values.dataset, values.data_dir)
    train, validation = data.split_validation(len(dataset.train_images), 0.1)
    workdir = expanded(values.workdir)
    first = [dataset.class_names[label] for label in dataset.train_labels[:4]]
    plots.save(plots.pictures(dataset.train_images[:4], first, 2), workdir / "images.png", values.show)
    if values.grid:
        sheet = plots.class_sheet(dataset.train_images, dataset.train_labels, dataset.class_names)
        plots.save(sheet, workdir / "classes.png", values.show)

    print(f"{dataset.name}: SHA-256 {dataset.sha256}")
    for name, images, labels in (
        ("train", dataset.train_images[train], dataset.train_labels[train]),
        ("validation", dataset.train_images[validation], dataset.train_labels[validation]),
        ("test", dataset.test_images, dataset.test_labels),
    ):
        counts = np.bincount(labels, minlength=len(dataset.class_names))
        print(
            f"{name:10} images {images.shape} {images.dtype}, labels {labels.shape} {labels.dtype}, "
            f"pixel mean {images.mean():.2f}, deviation {images.std():.2f} (of 255)"
        )
        print(f"{'':10} " + ", ".join(f"{name}: {n}" for name, n in zip(dataset.class_names, counts, strict=True)))
    print(f"Pictures: {workdir}")


if __name__ == "__main__":
    flags.command(__doc__, (Choices(),), main)
