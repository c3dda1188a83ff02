"""Polars: one zstd Parquet file a table, lazy expressions built once and collected each time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from data import FIVE_MINUTES, HOUR, Dump, ranks
from engines.base import Asked, Engine, csv_lines, few, flat, json_lines, slow_rows, sync, task_rows

NEWEST = ["timestamp", "task_id", "agent_id"]


class Polars(Engine):
    name = "polars"

    @staticmethod
    def version() -> str:
        return pl.__version__

    def prepare(self, dump: Dump) -> None:
        def frame(table: Any) -> pl.DataFrame:
            coded = [pl.col(pl.Categorical).cast(pl.String)]
            return pl.DataFrame(pl.from_arrow(table)).with_columns(coded)

        self.task_frame, self.gauge_frame = frame(dump.tasks), frame(dump.gauges)

    def _write(self, frame: pl.DataFrame, name: str) -> None:
        path = self.folder / f"{name}.parquet"
        frame.write_parquet(path, compression="zstd", statistics=True)
        sync(path)

    def load_tasks(self) -> None:
        self._write(self.task_frame, "tasks")

    def load_gauges(self) -> None:
        self._write(self.gauge_frame, "gauges")

    def settle(self) -> None:
        """Sorts the gauges by series, in groups small enough for statistics to find one."""
        path = self.folder / "gauges.parquet"
        frame = pl.read_parquet(path).sort("metric_type", "agent_id", "timestamp")
        frame.write_parquet(path, compression="zstd", statistics=True, row_group_size=65_536)
        sync(path)

    def sizes(self) -> tuple[int, int]:
        tasks, gauges = ((self.folder / f"{name}.parquet").stat().st_size for name in ("tasks", "gauges"))
        return tasks, gauges

    def _open(self, path: Path) -> pl.LazyFrame:
        return pl.scan_parquet(path)

    def open(self) -> None:
        self.task_rows = self._open(self.folder / "tasks.parquet")

    def first(self) -> Any:
        return self._figures(self.task_rows, "duration_ms").collect().row(0)

    @staticmethod
    def _figures(rows: pl.LazyFrame, column: str) -> pl.LazyFrame:
        value = pl.col(column)
        return rows.select(
            pl.len(), value.mean().alias("mean"), value.min().alias("min"), value.max().alias("max")
        )

    @staticmethod
    def _exact(count: int, column: str, ps: tuple[float, ...] = (0.5, 0.95, 0.99)) -> pl.Expr:
        # One sort is faster than three quantiles; "in-memory" below is faster for it.
        return pl.col(column).sort().gather(ranks(count, ps)).implode().alias("ranks")

    def questions(self) -> dict[str, Asked]:
        p = self.parameters
        tasks = self.task_rows
        gauges = self._open(self.folder / "gauges.parquet")
        csv, lines = self.folder / "out.csv", self.folder / "out.jsonl"
        stamped = tasks.with_columns(pl.col("timestamp").cast(pl.Datetime("us")))
        value, stamp = pl.col("value"), pl.col("timestamp")
        metric = gauges.filter(pl.col("metric_type") == p.metric)
        task_count = tasks.select(pl.len()).collect().item()
        metric_count = metric.select(pl.len()).collect().item()

        def frame(query: pl.LazyFrame) -> Callable[[], pl.DataFrame]:
            return lambda: query.collect()

        def rows(query: pl.LazyFrame, answer: Callable[[Any], list[Any]] = flat) -> Asked:
            return (lambda: query.collect().rows()), answer

        def one_row(query: pl.LazyFrame, answer: Callable[[Any], list[Any]]) -> Asked:
            return (lambda: query.collect(engine="in-memory").row(0)), answer

        def between(bounds: tuple[int, int]) -> pl.Expr:
            return (stamp >= bounds[0]) & (stamp < bounds[1])

        hour = tasks.filter((pl.col("agent_id") == p.agent) & between(p.hour)).select(
            pl.col("duration_ms").sort()
        )

        def agent_hour() -> tuple[float | None, list[int]]:
            durations = hour.collect().to_series()
            return durations.mean(), durations.to_list()

        threshold = tasks.select(pl.col("duration_ms").top_k(10).min())
        columns = ["duration_ms", "task_id", "timestamp", "agent_id"]

        def slowest() -> list[tuple[Any, ...]]:
            # Two passes, of which the second reads few rows, beat sorting by four columns.
            least = threshold.collect().item()
            found = tasks.filter(pl.col("duration_ms") >= least).select(columns)
            return found.sort(["duration_ms", *NEWEST], descending=True).head(10).collect().rows()

        summary = tasks.select(
            pl.len(),
            pl.col("success").sum(),
            pl.col("duration_ms").mean(),
            pl.col("tokens_used").mean().alias("mean_tokens"),
            pl.col("tokens_used").sum(),
            pl.col("agent_id").n_unique(),
            self._exact(task_count, "duration_ms", (0.95, 0.99)),
        )

        def summary_answer(row: tuple[Any, ...]) -> list[Any]:
            count, successes, duration, tokens, total, agents, (p95, p99) = row
            return [count, successes, successes / count, duration, p95, p99, tokens, total, agents]

        return {
            "one": rows(self._figures(pl.LazyFrame({"duration_ms": [1]}), "duration_ms")),
            "Q1": rows(self._figures(tasks, "duration_ms")),
            "Q1p": rows(self._figures(tasks.filter(between(p.range)), "duration_ms")),
            "Q2": one_row(tasks.select(self._exact(task_count, "duration_ms")), lambda row: list(row[0])),
            "Q3": (agent_hour, lambda found: few(*found)),
            "Q4": rows(
                tasks.group_by((stamp // HOUR * HOUR).alias("hour"))
                .agg(pl.col("duration_ms").mean(), pl.len())
                .sort("hour")
            ),
            "Q5": rows(
                tasks.group_by("agent_id")
                .agg(pl.col("duration_ms").mean())
                .sort(["duration_ms", "agent_id"], descending=[True, False])
                .head(5)
            ),
            "Q6": (slowest, slow_rows),
            "Q7": one_row(summary, summary_answer),
            "Q8": rows(tasks.filter(pl.col("task_id") == p.task_id).sort(NEWEST, descending=True), task_rows),
            "Q9": rows(
                tasks.filter(pl.col("agent_id") == p.agent).sort(NEWEST, descending=True).head(100),
                task_rows,
            ),
            "Q10c": (frame(tasks), lambda found: self.tasks_digest(found.to_arrow())),
            "Q11": ((lambda: stamped.sink_csv(csv)), lambda _: csv_lines(csv)),
            "Q12": ((lambda: stamped.sink_ndjson(lines)), lambda _: json_lines(lines)),
            "A1": rows(self._figures(metric, "value")),
            "A2": one_row(metric.select(self._exact(metric_count, "value")), lambda row: list(row[0])),
            "A3": (
                frame(
                    gauges.filter(
                        (pl.col("metric_type") == p.series[1]) & (pl.col("agent_id") == p.series[0])
                    )
                    .select("timestamp", "value")
                    .sort("timestamp")
                ),
                lambda found: flat(found.rows()),
            ),
            "A4": (
                frame(
                    metric.group_by((stamp // FIVE_MINUTES * FIVE_MINUTES).alias("slot"))
                    .agg(value.mean(), pl.len())
                    .sort("slot")
                ),
                lambda found: flat(found.rows()),
            ),
            "A5": rows(metric.group_by("agent_id").agg(value.get(stamp.arg_max())).sort("agent_id")),
            "A6c": (frame(gauges), lambda found: self.gauges_digest(found.to_arrow())),
        }


class PolarsInMemory(Polars):
    """The same expressions over frames that were read into memory before."""

    name = "polars-memory"
    in_memory = True

    def _open(self, path: Path) -> pl.LazyFrame:
        return pl.read_parquet(path).lazy()
