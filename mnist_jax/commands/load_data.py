"""Loads a data set, prints its statistics, and draws the lecture's four images; --grid adds images of each class.

python -m mnist_jax load_data --dataset=mnist5k

Writes images.png, with the first image of each of the first four classes, and with --grid classes.png.
"""

import dataclasses

from mnist_jax import cli
from mnist_jax.commands._output import OutputFlags
from mnist_jax.config import Config
from mnist_jax.fields import flag_field, flags_of


@dataclasses.dataclass(frozen=True)
class Flags(OutputFlags):
    """The flags of the command."""

    dataset: str = flag_field(Config.dataset, flags_of(Config)["dataset"].help, group="data")
    data_dir: str = flag_field(Config.data_dir, flags_of(Config)["data_dir"].help, group="data")
    grid: bool = flag_field(False, "also draw the first images of each class", group="output")
    show: bool = flag_field(True, "show the plots if there is a screen", group="output")


def main(flags: Flags, positional: list[str]) -> None:
    """Runs the command.

    Args:
      flags: parsed flags.
      positional: must be empty.

    Raises:
      ConfigError: no such data set, or no folder to write.
      DataError: its files are missing or damaged.
    """
    cli.reject_positionals(positional)
    flags.check_output("images.png", *["classes.png"] * flags.grid)
    import numpy as np

    from mnist_jax import batches, datasets, figures, plots

    dataset = datasets.load_dataset(flags.dataset, flags.data_dir)
    train, validation = batches.split_dataset(dataset, Config.validation_fraction)
    rows = np.unique(dataset.train_labels, return_index=True)[1][:4]
    titles = [f"label {dataset.class_names[label]}" for label in dataset.train_labels[rows]]
    folder = flags.make_output(f"load_data-{flags.dataset.partition(':')[0]}")
    figures.save(plots.image_grid(dataset.train_images[rows], titles, 2), folder / "images.png", flags.show)
    if flags.grid:
        figure = plots.class_grid(dataset.train_images, dataset.train_labels, dataset.class_names)
        figures.save(figure, folder / "classes.png", flags.show)

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
    print(f"Results: {folder}")


if __name__ == "__main__":
    cli.run_cli(__doc__, Flags(), main)
