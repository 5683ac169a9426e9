"""Scores a saved run on any data set: accuracy, loss, precision and recall of each class, confusion matrix.

python -m experiments.evaluate --workdir=runs/mine --dataset=mnist5k
"""

import dataclasses

from experiments import flags
from mnist_jax.config import Config, choice
from mnist_jax.errors import ConfigError, DataError
from mnist_jax.files import expanded


@dataclasses.dataclass(frozen=True)
class Choices:
    workdir: str = choice("", "folder of the run")
    run_seed: int = choice(None, "which of the run's seeds; left out: its first")
    dataset: str = choice("", "data set to score; left out: the run's own")
    data_dir: str = choice("", Config.__dataclass_fields__["data_dir"].metadata["help"])
    split: str = choice("test", "test, validation or train; the last two as the run split them")
    platform: str = choice("", "cpu, gpu or tpu; left out: the best that JAX finds")


def main(values, rest):
    flags.refuse(rest)
    if not values.workdir:
        raise ConfigError("--workdir=: name the folder of a run")
    if values.split not in ("test", "validation", "train"):
        raise ConfigError(f"--split={values.split}: must be test, validation or train")
    import functools

    import jax
    import numpy as np

    from mnist_jax import data, files, metrics, plots, runner, train

    runner.keep_compiled()
    runner.choose_device(values.platform)
    run = runner.load_run(values.workdir, values.run_seed)
    name = values.dataset or run.config.dataset
    dataset = data.load_dataset(name, values.data_dir or run.config.data_dir)
    names, shape = run.result["dataset"]["class_names"], tuple(run.result["dataset"]["image_shape"])
    if dataset.test_images.shape[1:] != shape:
        found = "x".join(map(str, dataset.test_images.shape[1:]))
        raise DataError(f"--dataset={name}: its images are {found}, the run's are {'x'.join(map(str, shape))}")
    if len(dataset.class_names) != len(names):
        raise DataError(f"--dataset={name}: has {len(dataset.class_names)} classes, the run has {len(names)}")
    images, labels = dataset.test_images, dataset.test_labels
    if values.split != "test":
        rows = data.split_validation(len(dataset.train_images), run.config.validation_fraction)
        rows = rows[values.split == "validation"]
        images, labels = dataset.train_images[rows], dataset.train_labels[rows]
    if not len(labels):
        raise ConfigError(f"--split={values.split}: the run held no images out")

    images_there, labels_there = jax.device_put((images, labels))
    sums = jax.jit(functools.partial(train.evaluate, run.parts.eval_step))(run.state, images_there, labels_there)
    predict = jax.jit(functools.partial(train.predict, run.parts.model, dtype=run.parts.dtype))
    logits = np.asarray(predict(run.state, images_there))
    scores = metrics.compute(jax.device_get(sums))
    matrix = metrics.confusion_matrix(labels, logits.argmax(axis=-1), len(names))
    classes = metrics.per_class(matrix)

    print(f"accuracy {100 * scores['accuracy']:.2f} %, loss {scores['loss']:.4f}, {scores['count']} images of {name}")
    width = max(9, *map(len, names))
    print(f"{'class':>{width}}  precision  recall   count")
    for label, row in zip(names, classes, strict=True):
        precision, recall = (f"{row[k]:.4f}" if row[k] is not None else "-" for k in ("precision", "recall"))
        print(f"{label:>{width}}  {precision:>9}  {recall:>6}  {row['count']:>6}")
    print("confusion matrix (rows: labels, columns: answers)")
    cell = len(str(matrix.max()))
    for label, row in zip(names, matrix, strict=True):
        print(f"{label:>{width}}  " + " ".join(f"{n:>{cell}}" for n in row))
    folder = expanded(values.workdir) / f"evaluate-{name.partition(':')[0]}-{values.split}"
    plots.save(plots.confusion(matrix, names), folder / "confusion.png")
    plots.save(plots.mistakes(images, labels, logits, names), folder / "mistakes.png")
    facts = {"dataset": {"name": dataset.name, "sha256": dataset.sha256}, "split": values.split, **scores}
    facts |= {"classes": dict(zip(names, classes, strict=True)), "confusion": matrix.tolist()}
    files.write_json(folder / "evaluation.json", facts)
    print(f"Results: {folder}")


if __name__ == "__main__":
    flags.command(__doc__, (Choices(),), main)
