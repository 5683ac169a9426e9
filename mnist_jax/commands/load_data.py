"""Loads a data set, prints its statistics, and draws the lecture's four images; --grid adds images of each class.

python -m mnist_jax load_data --dataset=mnist5k
"""

import dataclasses

from mnist_jax import cli
from mnist_jax.config import Config
from mnist_jax.fields import flag_field, flags_of
from mnist_jax.files import expand_user


@dataclasses.dataclass(frozen=True)
class Flags:
    """The flags of the command."""

    dataset: str = flag_field(Config.dataset, flags_of(Config)["dataset"].help)
    data_dir: str = flag_field(Config.data_dir, flags_of(Config)["data_dir"].help)
    workdir: str = flag_field("runs/load_data", "folder for the plots")
    grid: bool = flag_field(False, "also draw the first images of each class")
    show: bool = flag_field(True, "show the plots if there is a screen")


def main(flags: Flags, positional: list[str]) -> None:
    """Runs the command.

    Args:
      flags: parsed flags.
      positional: must be empty.

    Raises:
      ConfigError: no such data set.
      DataError: its files are missing or damaged.
    """
    cli.reject_positionals(positional)
    import numpy as np

    from mnist_jax import batches, datasets, plots

    dataset = datasets.load_dataset(flags.dataset, flags.data_dir)
    train, validation = batches.split_validation(len(dataset.train_images), Config.validation_fraction)
    workdir = expand_user(flags.workdir)
    titles = [dataset.class_names[label] for label in dataset.train_labels[:4]]
    plots.save(plots.image_grid(dataset.train_images[:4], titles, 2), workdir / "images.png", flags.show)
    if flags.grid:
        figure = plots.class_grid(dataset.train_images, dataset.train_labels, dataset.class_names)
        plots.save(figure, workdir / "classes.png", flags.show)

    print(f"{dataset.name}: SHA-256 {dataset.sha256}")
    for split, images, labels in (
        ("train", dataset.train_images[train], dataset.train_labels[train]),
        ("validation", dataset.train_images[validation], dataset.train_labels[validation]),
        ("test", dataset.test_images, dataset.test_labels),
    ):
        counts = np.bincount(labels, minlength=len(dataset.class_names))
        print(
            f"{split:10} images {images.shape} {images.dtype}, labels {labels.shape} {labels.dtype}, "
            f"pixel mean {images.mean():.2f}, std {images.std():.2f}"
        )
        print(f"{'':10} " + ", ".join(f"{name}: {n}" for name, n in zip(dataset.class_names, counts, strict=True)))
    print(f"Plots: {workdir}")


if __name__ == "__main__":
    cli.run_cli(__doc__, Flags(), main)
