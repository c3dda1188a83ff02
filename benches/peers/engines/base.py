"""What every engine does, and what the answers of all look like."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data import Dump, Parameters, ranks

#: How a question is asked (timed), and how its result becomes the flat answer (not timed).
Asked = tuple[Callable[[], Any], Callable[[Any], list[Any]]]


class Engine(ABC):
    """One peer. A new process makes one, loads or opens, and asks."""

    name: str
    #: The engine keeps its data in memory: it stands beside the others, not among them.
    in_memory = False

    def __init__(self, folder: Path, parameters: Parameters) -> None:
        self.folder = folder
        self.parameters = parameters
        folder.mkdir(parents=True, exist_ok=True)

    @staticmethod
    @abstractmethod
    def version() -> str: ...

    def prepare(self, dump: Dump) -> None:
        """Whatever the rows need before the clock starts: they are in memory afterwards."""
        self.tasks: pa.Table = dump.tasks.combine_chunks()
        self.gauges: pa.Table = dump.gauges.combine_chunks()

    @abstractmethod
    def load_tasks(self) -> None:
        """All tasks, durable when it returns."""

    @abstractmethod
    def load_gauges(self) -> None:
        """All gauges, durable when it returns."""

    def settle(self) -> None:
        """What a patient user does once after a load: sort, merge, index, checkpoint."""

    def close(self) -> None:
        """Lets go of files, so that their sizes are final."""

    def batches(self, tables: list[pa.Table]) -> Iterable[Callable[[], None]]:
        """One call for each batch, which is durable when the call returns; none if it cannot."""
        return ()

    @abstractmethod
    def sizes(self) -> tuple[int, int]:
        """Bytes on disk of tasks and gauges."""

    @abstractmethod
    def open(self) -> None:
        """Opens what `load` left, in a new process."""

    @abstractmethod
    def first(self) -> Any:
        """Q1 as the first thing after `open`, nothing prepared."""

    @abstractmethod
    def questions(self) -> dict[str, Asked]:
        """Prepared questions; "one" asks about a table of one row."""

    def tasks_digest(self, table: pa.Table) -> list[Any]:
        """Q10c: that every column of every row came."""
        return [
            table.num_rows,
            self._offsets(table),
            pc.sum(table["duration_ms"]).as_py(),
            pc.sum(table["tokens_used"]).as_py(),
            pc.sum(table["success"].cast(pa.int64())).as_py(),
            text_bytes(table["task_id"]),
            text_bytes(table["metadata"]),
            len(table) - table["metadata"].null_count,
        ]

    def gauges_digest(self, table: pa.Table) -> list[Any]:
        """A6c: that every column of every row came."""
        return [table.num_rows, self._offsets(table), pc.sum(table["value"]).as_py()]

    def _offsets(self, table: pa.Table) -> int:
        """Sum of the stamps in milliseconds since the start of the workload."""
        return pc.sum(pc.subtract(table["timestamp"], self.parameters.start)).as_py() // 1_000


def flat(rows: Iterable[Iterable[Any]]) -> list[Any]:
    """Rows end to end."""
    return [value for row in rows for value in row]


def task_rows(rows: Iterable[Sequence[Any]]) -> list[Any]:
    """Q8 and Q9: whole rows end to end, success as 0 or 1, no metadata as no text."""
    return flat((*row[:5], int(row[5]), row[6] or "") for row in rows)


def slow_rows(rows: Iterable[Sequence[Any]]) -> list[Any]:
    """Q6: of rows that begin with duration and task, those two."""
    return flat(row[:2] for row in rows)


def few(mean: float | None, ascending: Sequence[int] | None) -> list[Any]:
    """Q3: the mean and the percentiles of few enough values to bring them all here."""
    if not ascending:
        return [None] * 4
    return [mean, *(ascending[rank] for rank in ranks(len(ascending)))]


def arrow_rows(table: pa.Table) -> list[Any]:
    return flat(zip(*(column.to_pylist() for column in table.columns)))


def text_bytes(column: pa.ChunkedArray) -> int:
    # Views have no length function yet.
    return pc.sum(pc.binary_length(column.cast(pa.large_string()))).as_py()


def csv_lines(path: Path) -> list[Any]:
    """Q11: data lines of the file (a header does not count)."""
    with path.open("rb") as file:
        header = b"task_id" in file.readline()
    return [json_lines(path)[0] - header]


def json_lines(path: Path) -> list[Any]:
    """Q12: lines of the file."""
    with path.open("rb") as file:
        return [sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))]


def sync(path: Path) -> None:
    """The file, and its folder's entry of it, are durable."""
    for each in (path, path.parent):
        handle = os.open(each, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
