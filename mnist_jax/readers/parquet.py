"""Reads image data sets in Parquet files, as Hugging Face stores them."""

import json
import pathlib
from typing import TYPE_CHECKING

import numpy as np

from mnist_jax.errors import DataError, summarize_exception
from mnist_jax.idx import MAX_IDX_BYTES
from mnist_jax.readers.arrays import Arrays, group_splits, join_splits
from mnist_jax.readers.decode import Source, decode_all

if TYPE_CHECKING:
    import pyarrow

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")


def _choose_columns(schema: "pyarrow.Schema", path: pathlib.Path) -> tuple[str, str]:
    import pyarrow

    image = next((name for name in IMAGE_COLUMNS if name in schema.names), "")
    label = next((name for name in LABEL_COLUMNS if name in schema.names), "")
    kind = schema.field(image).type if image else None
    holds_bytes = kind is not None and pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    is_binary = kind is not None and (pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))
    if not label or not (holds_bytes or is_binary) or not pyarrow.types.is_integer(schema.field(label).type):
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise DataError(
            f"{path}: columns are {columns:.200}; there must be an image (bytes of PNG or JPEG) and a label (integer)"
        )
    return image, label


def _class_names(schema: "pyarrow.Schema") -> tuple[str, ...] | None:
    """The names that Hugging Face's datasets keep in the schema's metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = next(features[name]["names"] for name in LABEL_COLUMNS if name in features)
        return tuple(names) if all(isinstance(name, str) for name in names) else None
    except (KeyError, TypeError, ValueError, StopIteration, AttributeError):
        return None


def _read_file(path: pathlib.Path) -> tuple[list[Source], np.ndarray, tuple[str, ...] | None]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            image, label = _choose_columns(schema, path)
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            if sum(group.total_byte_size for group in groups) > MAX_IDX_BYTES:
                raise DataError(f"{path}: holds more than {MAX_IDX_BYTES} bytes")
            table = file.read([image, label])
        labels = table.column(label).to_numpy()
        cells = table.column(image).to_pylist()
    except DataError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
        raise DataError(f"{path}: can't be read as Parquet ({summarize_exception(error)})") from None
    contents = [cell.get("bytes") if isinstance(cell, dict) else cell for cell in cells]
    if table.column(label).null_count:
        raise DataError(f"{path}: has rows without a label")
    sources: list[Source] = [(f"{path}, row {row}", content or b"") for row, content in enumerate(contents)]
    return sources, labels, _class_names(schema)


def read_parquet(path: pathlib.Path, image_size: int = 0) -> Arrays:
    """Reads a data set of Parquet files with a column of encoded pictures and one of labels.

    Args:
      path: a file, of which a test split is drawn; or a folder with files whose names, or whose folders' names, say
        train, test and perhaps validation.
      image_size: height and width to resize to; 0: as they are, all alike.

    Returns:
      The data; class names are those in the file's metadata, if there are any.

    Raises:
      DataError: missing, damaged, or with other columns.

    Source: https://huggingface.co/docs/datasets/en/image_dataset.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: holds no .parquet file")
    sources: list[Source] = []
    labels, splits, class_names = [], [], None
    for file in files:
        name = file.relative_to(path).as_posix().lower() if path.is_dir() else ""
        split = next((word for word in ("test", "valid", "val", "train") if word in name), "train")
        read, found, names = _read_file(file)
        sources += read
        labels.append(found)
        splits += [{"valid": "validation", "val": "validation"}.get(split, split)] * len(read)
        class_names = class_names or names
    if not sources:
        raise DataError(f"{path}: holds no row")
    images, rows, remarks = decode_all(sources, image_size)
    label_of = np.concatenate(labels)[rows].astype(np.int64)
    if class_names and not 0 <= label_of.min() <= label_of.max() < len(class_names):
        raise DataError(f"{path}: label {label_of.max()} is out of range, there are {len(class_names)} class names")
    parts = group_splits(images, label_of, np.array(splits)[rows])
    if "train" not in parts:
        raise DataError(f"{path}: holds no file with train in its name")
    return join_splits(parts, path.name, class_names, remarks)
