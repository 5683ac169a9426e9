"""IDX files, the format in which MNIST is distributed."""

import gzip
import os
import pathlib
import zlib

import numpy as np

from mnist_jax.errors import DataError

IDX_FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
MAX_IDX_BYTES = 1 << 32
DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_RANK = 4
_DEFLATE_MAX_RATIO = 1032  # https://zlib.net/zlib_tech.html


def read_idx(path: str | os.PathLike[str], max_bytes: int = MAX_IDX_BYTES) -> np.ndarray:
    """Reads one IDX file of any of the format's types, gzipped or not.

    Args:
      path: the file.
      max_bytes: the largest size that its header may state.

    Returns:
      Array of rank 1 to 4 in the file's type: [N, H, W] or [N, H, W, C] for images, [N] for labels. A file of bytes
      that is not gzipped is mapped, not read: only the rows that are used take memory.

    Raises:
      DataError: the file is missing, truncated, not IDX, or does not hold what its header states. Memory is
        allocated for what the file can hold, not for what it states.

    Source: http://yann.lecun.com/exdb/mnist/ (the IDX file format).
    """
    path = pathlib.Path(path)
    try:
        with path.open("rb") as raw:
            is_gzip = raw.read(2) == b"\x1f\x8b"
        if path.suffix == ".gz" and not is_gzip:
            raise DataError(f"{path}: not a gzip file, though its name ends in .gz; download it again, or drop the .gz")
        with gzip.open(path) if is_gzip else path.open("rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES or not 1 <= magic[3] <= MAX_RANK:
                raise DataError(
                    f"{path}: wrong magic number {magic.hex() or '(empty file)'}; an IDX file of bytes starts with "
                    "00000803 (images) or 00000801 (labels)"
                )
            dtype = np.dtype(DTYPES[magic[2]])
            header = file.read(4 * magic[3])
            if len(header) < 4 * magic[3]:
                raise DataError(f"{path}: the file ends inside its header; download it again")
            shape = tuple(int(size) for size in np.frombuffer(header, ">u4"))
            expected_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
            if int(np.prod(np.maximum(shape, 1), dtype=object)) * dtype.itemsize > max_bytes:
                raise DataError(
                    f"{path}: its header states {expected_bytes} bytes of shape {shape}; the limit is {max_bytes}"
                )
            file_bytes, start = path.stat().st_size, len(magic) + len(header)
            max_uncompressed = file_bytes * (_DEFLATE_MAX_RATIO if is_gzip else 1)
            if not is_gzip and expected_bytes and file_bytes == start + expected_bytes:
                mapped = np.memmap(path, dtype, "r", start, shape)
                return np.asarray(mapped).astype(dtype.newbyteorder("="), copy=False)
            content = file.read(expected_bytes + 1) if expected_bytes <= max_uncompressed else b""
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: truncated or broken gzip file ({error}); download it again") from None
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror or error}") from None
    if len(content) != expected_bytes:
        have = "more" if len(content) > expected_bytes else "fewer"
        raise DataError(f"{path}: its header states {expected_bytes} bytes of shape {shape}, the file holds {have}")
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
