"""DuckDB: one file a table, fed from Arrow, checkpointed, SQL prepared once.

Agents and metrics are enums in the bulk load, although an enum must know all its values before
the first row: groups are three times faster so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import duckdb
import pyarrow as pa

from data import FIVE_MINUTES, HOUR, ranks
from engines.base import (
    Asked, Engine, arrow_rows, csv_lines, few, flat, json_lines, sync, task_rows,
)

TASKS = (
    "CREATE TABLE tasks (timestamp BIGINT NOT NULL, task_id VARCHAR NOT NULL, agent_id {0} NOT NULL,"
    " duration_ms BIGINT, tokens_used BIGINT, success BOOLEAN NOT NULL, metadata VARCHAR)"
)
GAUGES = (
    "CREATE TABLE gauges (timestamp BIGINT NOT NULL, agent_id {0} NOT NULL,"
    " metric_type {1} NOT NULL, value DOUBLE NOT NULL)"
)
FIGURES = "SELECT count(*), avg({0}), min({0}), max({0}) FROM {1}"
NEWEST = "ORDER BY timestamp DESC, task_id DESC, agent_id DESC"


class DuckDb(Engine):
    name = "duckdb"

    @staticmethod
    def version() -> str:
        return duckdb.__version__

    def _load(self, table: str, create: str, rows: pa.Table, *dictionaries: str) -> None:
        connection = duckdb.connect(str(self.folder / f"{table}.duckdb"))
        for column in dictionaries:
            values = ", ".join(f"'{value}'" for value in rows[column].chunk(0).dictionary.to_pylist())
            connection.execute(f"CREATE TYPE {column} AS ENUM ({values})")
        connection.execute(create.format(*dictionaries))
        connection.register("incoming", rows)
        connection.execute(f"INSERT INTO {table} SELECT * FROM incoming")
        connection.execute("CHECKPOINT")
        connection.close()
        sync(self.folder / f"{table}.duckdb")

    def load_tasks(self) -> None:
        self._load("tasks", TASKS, self.tasks, "agent_id")

    def load_gauges(self) -> None:
        self._load("gauges", GAUGES, self.gauges, "agent_id", "metric_type")

    def settle(self) -> None:
        """Sorts the gauges by series, so that zone maps find one."""
        arrived = self.folder / "arrived.duckdb"
        (self.folder / "gauges.duckdb").rename(arrived)
        connection = duckdb.connect(str(self.folder / "gauges.duckdb"))
        connection.execute(f"ATTACH '{arrived}' AS arrived (READ_ONLY)")
        connection.execute(
            "CREATE TABLE gauges AS FROM arrived.gauges ORDER BY metric_type, agent_id, timestamp"
        )
        connection.execute("CHECKPOINT")
        connection.close()
        arrived.unlink()

    def batches(self, tables: list[pa.Table]) -> Iterable[Callable[[], None]]:
        connection = duckdb.connect(str(self.folder / "batches.duckdb"))
        connection.execute(TASKS.format("VARCHAR"))
        for table in tables:
            def commit(table: pa.Table = table) -> None:
                connection.register("incoming", table)
                connection.execute("INSERT INTO tasks SELECT * FROM incoming")
            yield commit
        connection.close()

    def sizes(self) -> tuple[int, int]:
        tasks, gauges = ((self.folder / f"{name}.duckdb").stat().st_size for name in ("tasks", "gauges"))
        return tasks, gauges

    def open(self) -> None:
        self.connection = duckdb.connect(str(self.folder / "tasks.duckdb"))

    def first(self) -> Any:
        return self.connection.execute(FIGURES.format("duration_ms", "tasks")).fetchall()

    def questions(self) -> dict[str, Asked]:
        connection, p = self.connection, self.parameters
        connection.execute(f"ATTACH '{self.folder / 'gauges.duckdb'}' AS g")
        # Nobody asks for whole tables in an order.
        connection.execute("SET preserve_insertion_order = false")
        connection.execute("CREATE TEMP TABLE one AS SELECT 1::BIGINT AS duration_ms")
        csv, lines = self.folder / "out.csv", self.folder / "out.jsonl"
        stamped = "SELECT make_timestamp(timestamp) AS timestamp, * EXCLUDE timestamp FROM tasks"
        to_csv = f"COPY ({stamped}) TO '{csv}' (HEADER)"
        to_lines = f"COPY ({stamped}) TO '{lines}' (FORMAT json)"
        one_of = f"FROM g.gauges WHERE metric_type = '{p.metric}'"
        task_count = connection.execute("SELECT count(*) FROM tasks").fetchall()[0][0]
        metric_count = connection.execute(f"SELECT count(*) {one_of}").fetchall()[0][0]

        def exact(count: int, wanted: list[float]) -> str:
            # quantile_disc(q) is value ceil(n q) - 1 of the ascending ones: asked for the middle
            # of a step, it gives the rank of our definition.
            levels = [(rank + 0.5) / count for rank in ranks(count, tuple(wanted))]
            return f"[{', '.join(map(repr, levels))}]"

        def prepared(name: str, sql: str) -> Callable[[], Any]:
            connection.execute(f"PREPARE {name} AS {sql}")
            return lambda: connection.execute(f"EXECUTE {name}")

        def rows(name: str, sql: str, answer: Callable[[Any], list[Any]] = flat) -> Asked:
            ask = prepared(name, sql)
            return (lambda: ask().fetchall()), answer

        def lists(name: str, sql: str) -> Asked:
            """One row whose last values come as one list."""
            ask = prepared(name, sql)
            return (lambda: ask().fetchall()), lambda found: [*found[0][:-1], *found[0][-1]]

        def arrow(sql: str, digest: Callable[[pa.Table], list[Any]]) -> Asked:
            # What a prepared statement gives is copied once more on its way to Arrow; this not.
            relation = connection.sql(sql)
            return (lambda: relation.to_arrow_table()), digest

        def summary(percentiles: str) -> Asked:
            sql = (
                "SELECT count(*), count(*) FILTER (success), avg(duration_ms), avg(tokens_used),"
                f" sum(tokens_used), count(DISTINCT agent_id), {percentiles} FROM tasks"
            )
            ask = prepared("q7" + ("a" if "approx" in percentiles else ""), sql)

            def answer(found: list[tuple[Any, ...]]) -> list[Any]:
                count, successes, duration, tokens, total, agents, (p95, p99) = found[0]
                return [count, successes, successes / count, duration, p95, p99, tokens, int(total), agents]

            return (lambda: ask().fetchall()), answer

        figures = FIGURES.format("duration_ms", "tasks")
        one_agent = f"agent_id = '{p.agent}'"
        agent_hour = f"{one_agent} AND timestamp >= {p.hour[0]} AND timestamp < {p.hour[1]}"

        ask_q3 = prepared("q3", f"SELECT avg(duration_ms), list_sort(list(duration_ms)) FROM tasks WHERE {agent_hour}")
        return {
            "one": rows("one", FIGURES.format("duration_ms", "one")),
            "Q1": rows("q1", figures),
            "Q1p": rows("q1p", f"{figures} WHERE timestamp >= {p.range[0]} AND timestamp < {p.range[1]}"),
            "Q2": lists("q2", f"SELECT quantile_disc(duration_ms, {exact(task_count, [0.5, 0.95, 0.99])}) FROM tasks"),
            "Q2a": lists("q2a", "SELECT approx_quantile(duration_ms, [0.5, 0.95, 0.99]) FROM tasks"),
            "Q3": ((lambda: ask_q3().fetchall()), lambda found: few(*found[0])),
            "Q4": rows(
                "q4",
                f"SELECT timestamp // {HOUR} * {HOUR} AS hour, avg(duration_ms), count(*) FROM tasks"
                " GROUP BY hour ORDER BY hour",
            ),
            "Q5": rows(
                "q5",
                "SELECT agent_id, avg(duration_ms) AS mean FROM tasks GROUP BY agent_id"
                " ORDER BY mean DESC, agent_id LIMIT 5",
            ),
            "Q6": rows(
                "q6",
                # Finding the least of the ten first is faster than sorting by four columns.
                "SELECT duration_ms, task_id FROM tasks WHERE duration_ms >="
                " (SELECT min(d) FROM (SELECT duration_ms AS d FROM tasks ORDER BY d DESC LIMIT 10))"
                " ORDER BY duration_ms DESC, timestamp DESC, task_id DESC, agent_id DESC LIMIT 10",
            ),
            "Q7": summary(f"quantile_disc(duration_ms, {exact(task_count, [0.95, 0.99])})"),
            "Q7a": summary("approx_quantile(duration_ms, [0.95, 0.99])"),
            "Q8": rows("q8", f"SELECT * FROM tasks WHERE task_id = '{p.task_id}' {NEWEST}", task_rows),
            "Q9": rows(
                "q9",
                f"SELECT * FROM tasks WHERE {one_agent} AND timestamp >= (SELECT min(t) FROM"
                f" (SELECT timestamp AS t FROM tasks WHERE {one_agent} ORDER BY t DESC LIMIT 100)) {NEWEST} LIMIT 100",
                task_rows,
            ),
            "Q10c": arrow("SELECT * FROM tasks", self.tasks_digest),
            "Q11": ((lambda: connection.execute(to_csv)), lambda _: csv_lines(csv)),
            "Q12": ((lambda: connection.execute(to_lines)), lambda _: json_lines(lines)),
            "A1": rows("a1", f"SELECT count(*), avg(value), min(value), max(value) {one_of}"),
            "A2": lists("a2", f"SELECT quantile_disc(value, {exact(metric_count, [0.5, 0.95, 0.99])}) {one_of}"),
            "A3": arrow(
                "SELECT timestamp, value FROM g.gauges"
                f" WHERE agent_id = '{p.series[0]}' AND metric_type = '{p.series[1]}' ORDER BY timestamp",
                arrow_rows,
            ),
            "A4": arrow(
                f"SELECT timestamp // {FIVE_MINUTES} * {FIVE_MINUTES} AS slot, avg(value), count(*) {one_of}"
                " GROUP BY slot ORDER BY slot",
                arrow_rows,
            ),
            "A5": rows(
                "a5", f"SELECT agent_id, arg_max(value, timestamp) {one_of} GROUP BY agent_id ORDER BY agent_id"
            ),
            "A6c": arrow("SELECT * FROM g.gauges", self.gauges_digest),
        }
