"""Parquet files batch by batch, their columns as numbers or texts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .cells import text_cells


def _arrow() -> tuple[Any, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pa, pq


def open_parquet(path: Path) -> Any:
    """Open a file and read its schema.

    Raises
    ------
    ModuleNotFoundError
        If pyarrow is missing.
    ValueError
        If it is not Parquet, or cut off: the schema stands at the end.
    """
    try:
        pa, pq = _arrow()
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"file: {path} is Parquet, which needs pyarrow: pip install 'mercer[hf]'"
        ) from None
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"file: {path} is not Parquet, or cut off: {error}") from None


def readable(file: Any) -> tuple[list[str], dict[str, str]]:
    """Return the names of the columns that can be read, and the types of the others by name."""
    pa, _ = _arrow()
    names, others = [], {}
    for field in file.schema_arrow:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        plain = (
            pa.types.is_string(kind)
            or pa.types.is_large_string(kind)
            or pa.types.is_integer(kind)
            or pa.types.is_boolean(kind)
            or pa.types.is_floating(kind)
            or pa.types.is_decimal(kind)
            or pa.types.is_date(kind)
            or pa.types.is_timestamp(kind)
            or pa.types.is_null(kind)
        )
        if plain:
            names.append(field.name)
        else:
            others[field.name] = str(field.type)
    return names, others


def _column(array: Any, pa: Any) -> np.ndarray:
    """Make numbers, or texts, of an arrow array (n,)."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if pa.types.is_boolean(kind):
        array = array.cast(pa.int8())
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        # As a CSV file would have it, so that either kind of file fits the other.
        array = array.cast(pa.string())
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        return text_cells(array.to_pylist())
    if pa.types.is_null(kind):
        return np.full(len(array), np.nan)
    numbers = array.cast(pa.float64(), safe=False)
    return np.array(numbers.to_numpy(zero_copy_only=False), dtype=np.float64)


def parquet_batches(
    path: Path, file: Any, names: list[str], rows: int
) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield the columns of so many rows at a time.

    Raises
    ------
    ValueError
        If a part of the file cannot be read.
    """
    pa, _ = _arrow()
    try:
        for batch in file.iter_batches(batch_size=rows, columns=names):
            yield tuple(_column(batch.column(name), pa) for name in names)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"file: {path} is damaged: {error}") from None
