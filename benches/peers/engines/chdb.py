"""ClickHouse in the process (chdb): MergeTree tables on disk, merged to one part after the load.

It has no prepared statements here, so each question is sent as text. Few values come back as
JSON, many as Arrow, whichever is faster.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import chdb
import pyarrow as pa
from chdb import session

from data import FIVE_MINUTES, HOUR, Dump, plain
from engines.base import Asked, Engine, arrow_rows, csv_lines, few, flat, json_lines, slow_rows, task_rows

#: Parts are written and synced before an insert returns.
DURABLE = "fsync_after_insert = 1, fsync_part_directory = 1"
TASKS = (
    "CREATE TABLE {} (timestamp Int64 CODEC(DoubleDelta, ZSTD), task_id String CODEC(ZSTD),"
    " agent_id LowCardinality(String), duration_ms Int64 CODEC(T64, ZSTD), tokens_used Int64 CODEC(T64, ZSTD),"
    " success Bool, metadata Nullable(String) CODEC(ZSTD), INDEX task task_id TYPE minmax GRANULARITY 1)"
    f" ENGINE = MergeTree ORDER BY timestamp SETTINGS {DURABLE}"
)
GAUGES = (
    "CREATE TABLE gauges (timestamp Int64 CODEC(DoubleDelta, ZSTD), agent_id LowCardinality(String),"
    " metric_type LowCardinality(String), value Float64 CODEC(Gorilla, ZSTD))"
    f" ENGINE = MergeTree ORDER BY (metric_type, agent_id, timestamp) SETTINGS {DURABLE}"
)
NEWEST = "ORDER BY timestamp DESC, task_id DESC, agent_id DESC"
EXACT = "quantilesExact(0.5, 0.95, 0.99)"
#: The fastest that stays within the rank error allowed; the sampling one does not always.
ESTIMATE = "quantilesDD(0.005"
FIGURES = "SELECT count(), avg({0}), min({0}), max({0}) FROM {1}"


class ClickHouse(Engine):
    name = "chdb"
    session: session.Session | None = None

    @staticmethod
    def version() -> str:
        return f"{chdb.__version__} (ClickHouse {chdb.engine_version})"

    def _session(self) -> session.Session:
        if self.session is None:
            self.session = session.Session(str(self.folder))
        return self.session

    def prepare(self, dump: Dump) -> None:
        self.tasks = plain(dump.tasks).combine_chunks()
        self.gauges = plain(dump.gauges).combine_chunks()

    def _load(self, create: str, table: str, rows: pa.Table) -> None:
        self._session().query(create)
        incoming = rows  # Named in the statement.
        self._session().query(f"INSERT INTO {table} SELECT * FROM Python(incoming)")
        del incoming

    def load_tasks(self) -> None:
        self._load(TASKS.format("tasks"), "tasks", self.tasks)

    def load_gauges(self) -> None:
        self._load(GAUGES, "gauges", self.gauges)

    def settle(self) -> None:
        for table in ("tasks", "gauges"):
            self._session().query(f"OPTIMIZE TABLE {table} FINAL")

    def batches(self, tables: list[pa.Table]) -> Iterable[Callable[[], None]]:
        self._session().query(TASKS.format("tasks"))
        for table in tables:
            rows = plain(table)
            yield lambda rows=rows: self._insert(rows)

    def _insert(self, incoming: pa.Table) -> None:
        self._session().query("INSERT INTO tasks SELECT * FROM Python(incoming)")

    def sizes(self) -> tuple[int, int]:
        def size(table: str) -> int:
            sql = f"SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND table = '{table}'"
            return int(str(self._session().query(sql, "TSV")))

        return size("tasks"), size("gauges")

    def open(self) -> None:
        self._session()

    def _rows(self, sql: str) -> list[Any]:
        text = self._session().query(sql, "JSONCompactEachRow").bytes()
        return [json.loads(line) for line in text.splitlines()]

    def first(self) -> Any:
        return self._rows(FIGURES.format("duration_ms", "tasks"))

    def questions(self) -> dict[str, Asked]:
        p = self.parameters
        query = self._session().query
        # 64-bit integers as numbers, not as text.
        query("SET output_format_json_quote_64bit_integers = 0")
        query("CREATE TEMPORARY TABLE one (duration_ms Int64) ENGINE = Memory")
        query("INSERT INTO one VALUES (1)")
        csv, lines = self.folder / "out.csv", self.folder / "out.jsonl"
        stamped = "SELECT fromUnixTimestamp64Micro(timestamp, 'UTC') AS timestamp, * EXCEPT timestamp FROM tasks"
        figures = FIGURES.format("duration_ms", "tasks")
        metric = f"FROM gauges WHERE metric_type = '{p.metric}'"

        def rows(sql: str, answer: Callable[[Any], list[Any]] = flat) -> Asked:
            return (lambda: self._rows(sql)), answer

        def arrow(sql: str, answer: Callable[[pa.Table], list[Any]]) -> Asked:
            return (lambda: query(sql, "ArrowTable")), answer

        def summary(percentiles: str) -> Asked:
            def answer(found: list[Any]) -> list[Any]:
                count, successes, duration, tokens, total, agents, (p95, p99) = found[0]
                return [count, successes, successes / count, duration, p95, p99, tokens, total, agents]

            sql = (
                "SELECT count(), countIf(success), avg(duration_ms), avg(tokens_used), sum(tokens_used),"
                f" uniqExact(agent_id), {percentiles}(duration_ms) FROM tasks"
            )
            return rows(sql, answer)

        return {
            "one": rows(FIGURES.format("duration_ms", "one")),
            "Q1": rows(figures),
            "Q1p": rows(f"{figures} WHERE timestamp >= {p.range[0]} AND timestamp < {p.range[1]}"),
            "Q2": rows(f"SELECT {EXACT}(duration_ms) FROM tasks", lambda found: found[0][0]),
            "Q2a": rows(f"SELECT {ESTIMATE}, 0.5, 0.95, 0.99)(duration_ms) FROM tasks", lambda found: found[0][0]),
            "Q3": rows(
                "SELECT avg(duration_ms), arraySort(groupArray(duration_ms)) FROM tasks"
                f" WHERE agent_id = '{p.agent}' AND timestamp >= {p.hour[0]} AND timestamp < {p.hour[1]}",
                lambda found: few(*found[0]),
            ),
            "Q4": rows(
                f"SELECT intDiv(timestamp, {HOUR}) * {HOUR} AS hour, avg(duration_ms), count() FROM tasks"
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
            "Q7": summary("quantilesExact(0.95, 0.99)"),
            "Q7a": summary(f"{ESTIMATE}, 0.95, 0.99)"),
            "Q8": rows(f"SELECT * FROM tasks WHERE task_id = '{p.task_id}' {NEWEST}", task_rows),
            "Q9": rows(
                # The inner question reads backwards along the key and stops.
                f"SELECT * FROM tasks WHERE agent_id = '{p.agent}' AND timestamp >= (SELECT min(t) FROM"
                f" (SELECT timestamp AS t FROM tasks WHERE agent_id = '{p.agent}' ORDER BY t DESC LIMIT 100))"
                f" {NEWEST} LIMIT 100",
                task_rows,
            ),
            "Q10c": arrow("SELECT * FROM tasks", self.tasks_digest),
            "Q11": (
                (lambda: query(f"{stamped} INTO OUTFILE '{csv}' TRUNCATE FORMAT CSVWithNames")),
                lambda _: csv_lines(csv),
            ),
            "Q12": (
                (lambda: query(f"{stamped} INTO OUTFILE '{lines}' TRUNCATE FORMAT JSONEachRow")),
                lambda _: json_lines(lines),
            ),
            "A1": rows(f"SELECT count(), avg(value), min(value), max(value) {metric}"),
            "A2": rows(f"SELECT {EXACT}(value) {metric}", lambda found: found[0][0]),
            "A3": arrow(
                "SELECT timestamp, value FROM gauges"
                f" WHERE agent_id = '{p.series[0]}' AND metric_type = '{p.series[1]}' ORDER BY timestamp, value",
                arrow_rows,
            ),
            "A4": rows(
                f"SELECT intDiv(timestamp, {FIVE_MINUTES}) * {FIVE_MINUTES} AS slot, avg(value), count() {metric}"
                " GROUP BY slot ORDER BY slot"
            ),
            "A5": rows(f"SELECT agent_id, argMax(value, timestamp) {metric} GROUP BY agent_id ORDER BY agent_id"),
            "A6c": arrow("SELECT * FROM gauges", self.gauges_digest),
        }
