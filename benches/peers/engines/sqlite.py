"""SQLite: WAL, FULL, covering indexes made after the load, prepared statements (cached by text)."""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa

from data import FIVE_MINUTES, GAUGE_COLUMNS, HOUR, TASK_COLUMNS, Dump, ranks
from engines.base import Asked, Engine, csv_lines, few, flat, task_rows

TASKS = (
    "CREATE TABLE tasks (timestamp INTEGER NOT NULL, task_id TEXT NOT NULL, agent INTEGER NOT NULL,"
    " duration_ms INTEGER, tokens_used INTEGER, success INTEGER NOT NULL, metadata TEXT)"
)
#: Names once, codes in the rows: half the size, and faster groups.
NAMES = "CREATE TABLE {} (code INTEGER PRIMARY KEY, name TEXT NOT NULL)"
TASK_INDEXES = [
    "CREATE INDEX tasks_time ON tasks (timestamp, duration_ms)",
    "CREATE INDEX tasks_agent ON tasks (agent, timestamp, task_id, duration_ms)",
    "CREATE INDEX tasks_slow ON tasks (duration_ms, timestamp, task_id)",
    "CREATE INDEX tasks_task ON tasks (task_id)",
]
#: Clustered by series: one read a series, and the last value of each is one seek.
GAUGES = (
    "CREATE TABLE gauges (metric INTEGER NOT NULL, agent INTEGER NOT NULL, timestamp INTEGER NOT NULL,"
    " row INTEGER NOT NULL, value REAL NOT NULL, PRIMARY KEY (metric, agent, timestamp, row)) WITHOUT ROWID"
)
GAUGE_INDEXES = ["CREATE INDEX gauges_value ON gauges (metric, value)"]


class Sqlite(Engine):
    name = "sqlite"

    @staticmethod
    def version() -> str:
        return sqlite3.sqlite_version

    def _connect(self, name: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.folder / f"{name}.sqlite", isolation_level=None, cached_statements=256
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -131072")
        connection.execute("PRAGMA mmap_size = 8589934592")
        connection.execute("PRAGMA temp_store = MEMORY")
        return connection

    def prepare(self, dump: Dump) -> None:
        def columns(table: pa.Table) -> list[list[Any]]:
            found = []
            for column in table.combine_chunks().columns:
                column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
                is_coded = isinstance(column, pa.DictionaryArray)
                found.append((column.indices if is_coded else column).to_pylist())
            return found

        self.task_rows = list(zip(*columns(dump.tasks)))
        self.task_names = list(enumerate(dump.lines("tasks.agent_id")))
        stamps, agents, metrics, values = columns(dump.gauges)
        self.gauge_rows = list(zip(metrics, agents, stamps, range(len(stamps)), values))
        self.gauge_names = list(enumerate(dump.lines("gauges.agent_id")))
        self.metric_names = list(enumerate(dump.lines("gauges.metric_type")))

    def load_tasks(self) -> None:
        connection = self._connect("tasks")
        connection.execute("BEGIN")
        connection.execute(TASKS)
        connection.execute(NAMES.format("agents"))
        connection.executemany("INSERT INTO agents VALUES (?, ?)", self.task_names)
        connection.executemany("INSERT INTO tasks VALUES (?, ?, ?, ?, ?, ?, ?)", self.task_rows)
        connection.execute("COMMIT")
        connection.close()

    def load_gauges(self) -> None:
        connection = self._connect("gauges")
        connection.execute("BEGIN")
        connection.execute(GAUGES)
        for table, names in (("agents", self.gauge_names), ("metrics", self.metric_names)):
            connection.execute(NAMES.format(table))
            connection.executemany(f"INSERT INTO {table} VALUES (?, ?)", names)
        connection.executemany("INSERT INTO gauges VALUES (?, ?, ?, ?, ?)", self.gauge_rows)
        connection.execute("COMMIT")
        connection.close()

    def settle(self) -> None:
        for name, indexes in (("tasks", TASK_INDEXES), ("gauges", GAUGE_INDEXES)):
            connection = self._connect(name)
            for index in indexes:
                connection.execute(index)
            connection.execute("ANALYZE")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.close()

    def batches(self, tables: list[pa.Table]) -> Iterable[Callable[[], None]]:
        """Without an index: the best it can do."""
        connection = self._connect("batches")
        connection.execute(TASKS)
        for table in tables:
            coded = table.set_column(2, "agent", table["agent_id"].combine_chunks().indices)
            rows = list(zip(*(column.to_pylist() for column in coded.columns)))

            def commit(rows: list[tuple[Any, ...]] = rows) -> None:
                connection.execute("BEGIN")
                connection.executemany("INSERT INTO tasks VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
                connection.execute("COMMIT")

            yield commit
        connection.close()

    def sizes(self) -> tuple[int, int]:
        tasks, gauges = ((self.folder / f"{name}.sqlite").stat().st_size for name in ("tasks", "gauges"))
        return tasks, gauges

    def open(self) -> None:
        self.connection = self._connect("tasks")

    FIGURES = "SELECT count(*), avg(duration_ms), min(duration_ms), max(duration_ms) FROM tasks"

    def first(self) -> Any:
        return self.connection.execute(self.FIGURES).fetchone()

    def questions(self) -> dict[str, Asked]:
        tasks, p = self.connection, self.parameters
        gauges = self._connect("gauges")
        tasks.execute("CREATE TEMP TABLE one AS SELECT 1 AS duration_ms")
        csv_path = self.folder / "out.csv"

        def code(connection: sqlite3.Connection, table: str, name: str) -> int:
            return connection.execute(f"SELECT code FROM {table} WHERE name = ?", (name,)).fetchone()[0]

        agent = code(tasks, "agents", p.agent)
        series_agent = code(gauges, "agents", p.series[0])
        series_metric = code(gauges, "metrics", p.series[1])
        metric = code(gauges, "metrics", p.metric)
        row = "timestamp, task_id, name, duration_ms, tokens_used, success, metadata"
        newest = "timestamp DESC, task_id DESC"

        def rows(
            connection: sqlite3.Connection,
            sql: str,
            *values: Any,
            answer: Callable[[Any], list[Any]] = flat,
        ) -> Asked:
            return (lambda: connection.execute(sql, values).fetchall()), answer

        def at_rank(connection: sqlite3.Connection, column: str, table: str, where: str, count: int, rank: int) -> str:
            """Walks the index from its nearer end."""
            if rank < count // 2:
                return f"(SELECT {column} FROM {table} {where} ORDER BY {column} LIMIT 1 OFFSET {rank})"
            return f"(SELECT {column} FROM {table} {where} ORDER BY {column} DESC LIMIT 1 OFFSET {count - 1 - rank})"

        task_count = tasks.execute("SELECT count(*) FROM tasks").fetchone()[0]
        metric_count = gauges.execute("SELECT count(*) FROM gauges WHERE metric = ?", (metric,)).fetchone()[0]
        where_metric = f"WHERE metric = {metric}"
        p50, p95, p99 = (at_rank(tasks, "duration_ms", "tasks", "", task_count, rank) for rank in ranks(task_count))
        metric_ranks = [
            at_rank(gauges, "value", "gauges", where_metric, metric_count, rank) for rank in ranks(metric_count)
        ]
        hour = (
            "SELECT duration_ms FROM tasks WHERE agent = ? AND timestamp >= ? AND timestamp < ?"
            " ORDER BY duration_ms"
        )

        def agent_hour() -> tuple[float | None, list[int]]:
            found = [value for (value,) in tasks.execute(hour, (agent, *p.hour))]
            return (sum(found) / len(found) if found else None), found

        summary = (
            "SELECT count(*), sum(success), avg(duration_ms), avg(tokens_used), sum(tokens_used),"
            f" (SELECT count(*) FROM agents WHERE EXISTS (SELECT 1 FROM tasks WHERE agent = code)), {p95}, {p99} FROM tasks"
        )

        def summary_answer(found: tuple[Any, ...]) -> list[Any]:
            count, successes, duration, tokens, total, agents, high, highest = found
            return [count, successes, successes / count, duration, high, highest, tokens, total, agents]

        def fetch(connection: sqlite3.Connection, sql: str) -> Callable[[], list[tuple[Any, ...]]]:
            return lambda: connection.execute(sql).fetchall()

        def write_csv() -> None:
            with csv_path.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(TASK_COLUMNS)
                writer.writerows(tasks.execute(f"SELECT {row} FROM tasks JOIN agents ON code = agent"))

        return {
            "one": rows(tasks, self.FIGURES.replace("tasks", "one")),
            "Q1": rows(tasks, self.FIGURES),
            "Q1p": rows(tasks, f"{self.FIGURES} WHERE timestamp >= ? AND timestamp < ?", *p.range),
            "Q2": rows(tasks, f"SELECT {p50}, {p95}, {p99}"),
            "Q3": (agent_hour, lambda found: few(*found)),
            "Q4": rows(
                tasks,
                f"SELECT timestamp / {HOUR} * {HOUR} AS hour, avg(duration_ms), count(*) FROM tasks"
                " GROUP BY hour ORDER BY hour",
            ),
            "Q5": rows(
                tasks,
                "SELECT name, mean FROM (SELECT agent, avg(duration_ms) AS mean FROM tasks GROUP BY agent)"
                " JOIN agents ON code = agent ORDER BY mean DESC, name LIMIT 5",
            ),
            "Q6": rows(
                tasks,
                "SELECT duration_ms, task_id FROM tasks"
                " ORDER BY duration_ms DESC, timestamp DESC, task_id DESC LIMIT 10",
            ),
            "Q7": ((lambda: tasks.execute(summary).fetchone()), summary_answer),
            "Q8": rows(
                tasks,
                f"SELECT {row} FROM tasks JOIN agents ON code = agent WHERE task_id = ? ORDER BY {newest}, name DESC",
                p.task_id,
                answer=task_rows,
            ),
            "Q9": rows(
                tasks,
                f"SELECT {row} FROM (SELECT * FROM tasks WHERE agent = ? ORDER BY {newest} LIMIT 100)"
                f" JOIN agents ON code = agent ORDER BY {newest}",
                agent,
                answer=task_rows,
            ),
            "Q10c": (
                fetch(tasks, "SELECT * FROM tasks"),
                lambda found: self.tasks_digest(table_of(found, TASK_COLUMNS)),
            ),
            "Q11": (write_csv, lambda _: csv_lines(csv_path)),
            "A1": rows(
                gauges, f"SELECT count(*), avg(value), min(value), max(value) FROM gauges {where_metric}"
            ),
            "A2": rows(gauges, f"SELECT {', '.join(metric_ranks)}"),
            "A3": rows(
                gauges,
                "SELECT timestamp, value FROM gauges WHERE metric = ? AND agent = ? ORDER BY timestamp",
                series_metric,
                series_agent,
            ),
            "A4": rows(
                gauges,
                f"SELECT timestamp / {FIVE_MINUTES} * {FIVE_MINUTES} AS slot, avg(value), count(*) FROM gauges {where_metric}"
                " GROUP BY slot ORDER BY slot",
            ),
            "A5": rows(
                gauges,
                "SELECT name, (SELECT value FROM gauges WHERE metric = ? AND agent = code"
                " ORDER BY timestamp DESC, row DESC LIMIT 1) FROM agents ORDER BY name",
                metric,
            ),
            "A6c": (
                fetch(gauges, "SELECT timestamp, agent, metric, value FROM gauges"),
                lambda found: self.gauges_digest(table_of(found, GAUGE_COLUMNS)),
            ),
        }


def table_of(rows: list[tuple[Any, ...]], names: list[str]) -> pa.Table:
    return pa.table([pa.array(column) for column in zip(*rows)], names=names)
