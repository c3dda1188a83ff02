"""The rows that every side gets: one dump of our own harness, as numpy and as Arrow.

Timestamps stay what they are with us, whole microseconds since 1970, in every engine: no
engine pays for making date objects that the others do not make.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

TASK_COLUMNS = ["timestamp", "task_id", "agent_id", "duration_ms", "tokens_used", "success", "metadata"]
GAUGE_COLUMNS = ["timestamp", "agent_id", "metric_type", "value"]

HOUR = 3_600_000_000
FIVE_MINUTES = 300_000_000


def ranks(count: int, ps: tuple[float, ...] = (0.5, 0.95, 0.99)) -> list[int]:
    """Which of `count` ascending values is the percentile: our definition."""
    return [min(int(count * p), count - 1) for p in ps]


@dataclass(frozen=True)
class Parameters:
    """What the questions ask for; `dump.json` says it."""

    rows: int
    #: Where the workload begins.
    start: int
    #: Of Q3 and Q9.
    agent: str
    hour: tuple[int, int]
    #: Of Q1p.
    range: tuple[int, int]
    #: Of Q8.
    task_id: str
    #: Of A1, A2, A4 and A5.
    metric: str
    #: Agent and metric of A3.
    series: tuple[str, str]

    @classmethod
    def read(cls, folder: Path) -> Parameters:
        facts = json.loads((folder / "dump.json").read_text())
        asked: dict[str, dict[str, Any]] = facts["questions"]
        return cls(
            rows=facts["rows"],
            start=facts["start_us"],
            agent=asked["Q3"]["agent_id"],
            hour=(asked["Q3"]["from"], asked["Q3"]["to"]),
            range=(asked["Q1p"]["from"], asked["Q1p"]["to"]),
            task_id=asked["Q8"]["task_id"],
            metric=asked["A1"]["metric_type"],
            series=(asked["A3"]["agent_id"], asked["A3"]["metric_type"]),
        )


class Dump:
    """One folder written by `cargo bench --bench workload -- dump DIR`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parameters = Parameters.read(folder)

    def numbers(self, column: str, kind: str) -> np.ndarray:
        types = {"i64": "<i8", "u32": "<u4", "u8": "u1", "f64": "<f8"}
        return np.fromfile(self.folder / f"{column}.{kind}", dtype=types[kind])

    def lines(self, column: str) -> list[str]:
        text = (self.folder / f"{column}.txt").read_text(encoding="utf-8")
        return text.removesuffix("\n").split("\n")

    def coded(self, column: str) -> pa.DictionaryArray:
        codes = pa.array(self.numbers(column, "u32").astype(np.int32))
        return pa.DictionaryArray.from_arrays(codes, pa.array(self.lines(column)))

    @cached_property
    def tasks(self) -> pa.Table:
        """The tasks in order of arrival, agents as a dictionary."""
        return pa.table(
            [
                pa.array(self.numbers("tasks.timestamp", "i64")),
                pa.array(self.lines("tasks.task_id")),
                self.coded("tasks.agent_id"),
                pa.array(self.numbers("tasks.duration_ms", "i64")),
                pa.array(self.numbers("tasks.tokens_used", "i64")),
                pa.array(self.numbers("tasks.success", "u8").astype(bool)),
                pa.array([line or None for line in self.lines("tasks.metadata")], pa.string()),
            ],
            names=TASK_COLUMNS,
        )

    @cached_property
    def gauges(self) -> pa.Table:
        """The gauges in order of arrival, agents and metrics as dictionaries."""
        return pa.table(
            [
                pa.array(self.numbers("gauges.timestamp", "i64")),
                self.coded("gauges.agent_id"),
                self.coded("gauges.metric_type"),
                pa.array(self.numbers("gauges.value", "f64")),
            ],
            names=GAUGE_COLUMNS,
        )


def plain(table: pa.Table) -> pa.Table:
    """The same rows with text in the place of dictionaries."""
    columns = [
        column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
        for column in table.columns
    ]
    return pa.table(columns, names=table.column_names)
