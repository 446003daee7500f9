"""``mercer predict``: what a model of ``mercer fit`` says of the rows of a table."""

import csv
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from .._core.progress import progress
from .command import Threads, check_counts, threads
from .errors import UserError, user_errors
from .fit import Delimiter, Header, delimiter_of, header_of

_ENDINGS = (".csv", ".tsv", ".parquet", ".pq")
Columns = dict[str, Any]  # names to arrays (n,)


@dataclass(frozen=True)
class Predict:
    """Predict the rows of a table by a model that `mercer fit` saved.

    Writes one row for each row of the table, in its order: the prediction, and for classes the
    probability of each.
    """

    model: Annotated[Positional[Path], arg(metavar="MODEL")]
    """The folder of the model: `model` in the folder that `mercer fit` wrote."""

    table: Annotated[Positional[Path], arg(metavar="TABLE")]
    """A CSV or Parquet file with the columns of the fit, in any order; others are ignored."""

    out: Annotated[Path, arg(metavar="FILE")] = Path("predictions.csv")
    """The file to write: .csv, .tsv or .parquet; it appears when it is complete."""

    keep: Annotated[tuple[str, ...], arg(metavar="COLUMN")] = ()
    """Columns of the table that are copied beside the predictions."""

    header: Header = "auto"

    delimiter: Delimiter = None

    batch_rows: Annotated[int, arg(metavar="N")] = 65536
    """Rows that are read, predicted and written at a time."""

    threads: Threads = None

    def run(self) -> None:
        """Carry the command out.

        Raises
        ------
        UserError
            If something that the user gave cannot be used.
        """
        check_counts(self, "batch_rows", "threads")
        if self.out.suffix.lower() not in _ENDINGS:
            raise UserError(
                f"--out: unknown ending {self.out.suffix!r}; expected {', '.join(_ENDINGS)}"
            )
        if self.out.is_dir():
            raise UserError(f"--out: {self.out} is a folder; name a file")
        if self.out.exists() and self.table.exists() and self.out.samefile(self.table):
            raise UserError("--out: is the table itself; name another file")
        with threads(self.threads):
            self._run()

    def _run(self) -> None:
        from ..datasets import TableFile
        from ..machines import TablePredictor

        with user_errors(OSError, ValueError, prefix="MODEL: "):
            model = TablePredictor.from_pretrained(self.model)
        first = model.encoder.columns[0].name
        with user_errors(OSError, ValueError, ModuleNotFoundError, prefix="TABLE: "):
            table = TableFile(
                self.table,
                header=header_of(self.header),
                delimiter=delimiter_of(self.delimiter),
                named=first,
            )
        with user_errors(ValueError, prefix="--keep: "):
            kept = [table.find(name) for name in self.keep]
            written = ["prediction", *(f"probability of {name}" for name in model.classes)]
            both = [name for name in kept if name in written]
            if both:
                raise ValueError(f"the column {both[0]!r} would be overwritten by a prediction")
        count = 0
        with user_errors(OSError, ModuleNotFoundError, prefix="--out: "), _written(self.out) as add:
            batches = _batches(model, table, kept, self.batch_rows)
            for columns in progress(batches, "batches", show=sys.stderr.isatty()):
                add(columns)
                count += len(columns["prediction"])
        others = [n for n in model.encoder.ignored(table.names) if n != model.target]
        ignored = [name for name in others if name not in model.encoder.notes]
        if ignored:
            sys.stderr.write(
                f"mercer: columns that the model does not know: {', '.join(ignored)}\n"
            )
        sys.stdout.write(f"{count:,} predictions of {model.target!r} in {self.out}\n")


def _batches(model: Any, table: Any, kept: list[str], rows: int) -> Iterator[Columns]:
    """Yield the columns that are written, so many rows at a time."""
    parts = table.chunks(rows)
    empty = True
    while True:
        with user_errors(ValueError, OSError, prefix="TABLE: "):
            part = next(parts, None)
            if part is None:
                break
            empty = False
            columns: Columns = {name: part.column(name) for name in kept}
            if model.classes:
                import numpy as np

                shares = model.probabilities(part).numpy()
                columns["prediction"] = np.array(model.classes, dtype=object)[shares.argmax(1)]
                for i, name in enumerate(model.classes):
                    columns[f"probability of {name}"] = shares[:, i]
            else:
                columns["prediction"] = model.numbers(part).numpy()
        yield columns
    if empty:
        raise UserError(f"TABLE: {table.path} holds no rows")


@contextmanager
def _written(file: Path) -> Iterator[Callable[[Columns], None]]:
    """Give what adds rows to a file, which appears when all are there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        with (_csv if file.suffix.lower() in (".csv", ".tsv") else _parquet)(aside, file) as add:
            yield add
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def _csv(aside: Path, file: Path) -> Iterator[Callable[[Columns], None]]:
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    with aside.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
        begun = False

        def add(columns: Columns) -> None:
            nonlocal begun
            if not begun:
                writer.writerow(columns)
                begun = True
            cells = [
                ["" if v is None or v != v else v for v in values.tolist()]
                for values in columns.values()
            ]
            writer.writerows(zip(*cells, strict=True))

        yield add


@contextmanager
def _parquet(aside: Path, file: Path) -> Iterator[Callable[[Columns], None]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{file} is Parquet, which needs pyarrow: pip install 'mercer[hf]'"
        ) from None
    writer: Any = None
    schema: Any = None

    def add(columns: Columns) -> None:
        nonlocal writer, schema
        if writer is None:
            fields = [
                (name, pa.float64() if values.dtype.kind == "f" else pa.string())
                for name, values in columns.items()
            ]
            schema = pa.schema(fields)
            writer = pq.ParquetWriter(aside, schema)
        arrays = [
            pa.array(values, field.type)
            for values, field in zip(columns.values(), schema, strict=True)
        ]
        writer.write_table(pa.table(arrays, schema=schema))

    try:
        yield add
    finally:
        if writer is not None:
            writer.close()
