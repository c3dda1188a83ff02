"""DataFusion: one zstd Parquet file a table, data frames planned once and collected each time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datafusion
import pyarrow as pa

from data import FIVE_MINUTES, HOUR, ranks
from engines.base import Asked, Engine, arrow_rows, csv_lines, few, json_lines, slow_rows, sync, task_rows

NEWEST = "ORDER BY timestamp DESC, task_id DESC, agent_id DESC"
FIGURES = "SELECT count(*), avg({0}), min({0}), max({0}) FROM {1}"


def make_context(late: bool = False) -> datafusion.SessionContext:
    """`late` filters rows while it decodes: faster where few columns or rows are wanted."""
    config = (
        datafusion.SessionConfig()
        .with_parquet_pruning(True)
        .set("datafusion.execution.parquet.pushdown_filters", str(late).lower())
        .set("datafusion.execution.parquet.reorder_filters", str(late).lower())
        .set("datafusion.execution.parquet.max_row_group_size", "131072")
    )
    return datafusion.SessionContext(config)


def rows_of(batches: list[pa.RecordBatch]) -> list[tuple[Any, ...]]:
    return [row for batch in batches for row in zip(*(column.to_pylist() for column in batch.columns))]


class DataFusion(Engine):
    name = "datafusion"

    @staticmethod
    def version() -> str:
        return datafusion.__version__

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.parquet"

    def _write(self, name: str, rows: pa.Table) -> None:
        make_context().from_arrow(rows).write_parquet(str(self._path(name)), compression="zstd", compression_level=3)
        sync(self._path(name))

    def load_tasks(self) -> None:
        self._write("tasks", self.tasks)

    def load_gauges(self) -> None:
        self._write("gauges", self.gauges)

    def settle(self) -> None:
        """Sorts the gauges by series, so that statistics find one."""
        arrived = self._path("arrived")
        self._path("gauges").rename(arrived)
        reader = make_context()
        reader.register_parquet("arrived", str(arrived))
        rows = reader.sql("SELECT * FROM arrived ORDER BY metric_type, agent_id, timestamp")
        rows.write_parquet(str(self._path("gauges")), compression="zstd", compression_level=3)
        sync(self._path("gauges"))
        arrived.unlink()

    def sizes(self) -> tuple[int, int]:
        return self._path("tasks").stat().st_size, self._path("gauges").stat().st_size

    def open(self) -> None:
        self.context = make_context()
        self.context.register_parquet("tasks", str(self._path("tasks")))

    def first(self) -> Any:
        return rows_of(self.context.sql(FIGURES.format("duration_ms", "tasks")).collect())

    def questions(self) -> dict[str, Asked]:
        context, p = self.context, self.parameters
        late = make_context(late=True)
        late.register_parquet("tasks", str(self._path("tasks")))
        late.register_parquet("gauges", str(self._path("gauges")))
        context.register_record_batches("one", [[pa.record_batch({"duration_ms": [1]})]])
        csv, lines = self.folder / "out.csv", self.folder / "out.jsonl"
        figures = FIGURES.format("duration_ms", "tasks")
        metric = f"FROM gauges WHERE metric_type = '{p.metric}'"

        def ask(sql: str) -> Callable[[], list[pa.RecordBatch]]:
            is_narrow = "FROM gauges" in sql or "task_id =" in sql
            planned = (late if is_narrow else context).sql(sql)
            return lambda: planned.collect()

        def rows(sql: str, answer: Callable[[Any], list[Any]] | None = None) -> Asked:
            asked = ask(sql)
            flat = lambda found: [value for row in found for value in row]
            return (lambda: rows_of(asked())), answer or flat

        def arrow(sql: str, answer: Callable[[pa.Table], list[Any]]) -> Asked:
            return ask(sql), lambda batches: answer(pa.Table.from_batches(batches))

        def count(of: str) -> int:
            return rows_of(late.sql(f"SELECT count(*) {of}").collect())[0][0]

        def exact(column: str, count: int, ps: tuple[float, ...] = (0.5, 0.95, 0.99)) -> str:
            # Where a continuous percentile falls on a value, it is that value: so the rank of
            # our definition is asked for.
            return ", ".join(
                f"percentile_cont({rank / (count - 1)!r}) WITHIN GROUP (ORDER BY {column}) AS rank{rank}"
                for rank in ranks(count, ps)
            )

        def summary(percentiles: str, whole: bool) -> Asked:
            def answer(found: list[tuple[Any, ...]]) -> list[Any]:
                count, successes, duration, tokens, total, agents, p95, p99 = found[0]
                if whole:
                    p95, p99 = round(p95), round(p99)
                return [count, successes, successes / count, duration, p95, p99, tokens, total, agents]

            sql = (
                "SELECT count(*), count(*) FILTER (WHERE success), avg(duration_ms), avg(tokens_used),"
                f" sum(tokens_used), count(DISTINCT agent_id), {percentiles} FROM tasks"
            )
            return rows(sql, answer)

        def estimate(share: float) -> str:
            return f"approx_percentile_cont({share}) WITHIN GROUP (ORDER BY duration_ms)"

        task_count = count("FROM tasks")
        stamped = context.sql(
            "SELECT to_timestamp_micros(timestamp) AS timestamp, task_id, agent_id, duration_ms, tokens_used,"
            " success, metadata FROM tasks"
        )

        def write_csv() -> None:
            csv.unlink(missing_ok=True)
            stamped.write_csv(str(csv), with_header=True)

        def write_lines() -> None:
            lines.unlink(missing_ok=True)
            stamped.write_json(str(lines))

        return {
            "one": rows(FIGURES.format("duration_ms", "one")),
            "Q1": rows(figures),
            "Q1p": rows(f"{figures} WHERE timestamp >= {p.range[0]} AND timestamp < {p.range[1]}"),
            "Q2": rows(
                f"SELECT {exact('duration_ms', task_count)} FROM tasks",
                lambda found: [round(value) for value in found[0]],
            ),
            "Q2a": rows(f"SELECT {estimate(0.5)}, {estimate(0.95)}, {estimate(0.99)} FROM tasks"),
            "Q3": rows(
                "SELECT avg(duration_ms), array_agg(duration_ms ORDER BY duration_ms) FROM tasks"
                f" WHERE agent_id = '{p.agent}' AND timestamp >= {p.hour[0]} AND timestamp < {p.hour[1]}",
                lambda found: few(*found[0]),
            ),
            "Q4": rows(
                f"SELECT timestamp / {HOUR} * {HOUR} AS hour, avg(duration_ms), count(*) FROM tasks"
                " GROUP BY hour ORDER BY hour"
            ),
            "Q5": rows(
                "SELECT agent_id, avg(duration_ms) AS mean FROM tasks GROUP BY agent_id"
                " ORDER BY mean DESC, agent_id LIMIT 5"
            ),
            "Q6": rows(
                # Finding the least of the ten first is faster than sorting by four columns.
                "SELECT duration_ms, task_id FROM tasks WHERE duration_ms >="
                " (SELECT min(d) FROM (SELECT duration_ms AS d FROM tasks ORDER BY d DESC LIMIT 10))"
                " ORDER BY duration_ms DESC, timestamp DESC, task_id DESC, agent_id DESC LIMIT 10",
                slow_rows,
            ),
            "Q7": summary(exact("duration_ms", task_count, (0.95, 0.99)), whole=True),
            "Q7a": summary(f"{estimate(0.95)}, {estimate(0.99)}", whole=False),
            "Q8": rows(f"SELECT * FROM tasks WHERE task_id = '{p.task_id}' {NEWEST}", task_rows),
            "Q9": rows(
                f"SELECT * FROM tasks WHERE agent_id = '{p.agent}' AND timestamp >= (SELECT min(t) FROM"
                f" (SELECT timestamp AS t FROM tasks WHERE agent_id = '{p.agent}' ORDER BY t DESC LIMIT 100))"
                f" {NEWEST} LIMIT 100",
                task_rows,
            ),
            "Q10c": arrow("SELECT * FROM tasks", self.tasks_digest),
            "Q11": (write_csv, lambda _: csv_lines(csv)),
            "Q12": (write_lines, lambda _: json_lines(lines)),
            "A1": rows(f"SELECT count(*), avg(value), min(value), max(value) {metric}"),
            "A2": rows(f"SELECT {exact('value', count(metric))} {metric}"),
            "A3": arrow(
                "SELECT timestamp, value FROM gauges"
                f" WHERE agent_id = '{p.series[0]}' AND metric_type = '{p.series[1]}' ORDER BY timestamp, value",
                arrow_rows,
            ),
            "A4": rows(
                f"SELECT timestamp / {FIVE_MINUTES} * {FIVE_MINUTES} AS slot, avg(value), count(*) {metric}"
                " GROUP BY slot ORDER BY slot"
            ),
            "A5": rows(
                f"SELECT agent_id, last_value(value ORDER BY timestamp) {metric} GROUP BY agent_id ORDER BY agent_id"
            ),
            "A6c": arrow("SELECT * FROM gauges", self.gauges_digest),
        }
