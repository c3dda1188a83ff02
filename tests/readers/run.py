#!/usr/bin/env python3
"""Reads exports back with programs that we did not write.

    python3 tests/readers/run.py COMMAND [--require]

COMMAND is the `tallystone` to test. A store of nasty rows is made, exported in every format, and
read by Python's csv and json, by gzip, LibreOffice, prometheus_client and promtool; what they read is
compared with what `query` answers. A reader that is not installed is skipped, and said so; with
--require it fails.
"""

import csv
import gzip
import io
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

COMMAND = str(Path(sys.argv[1]).resolve())
REQUIRE = "--require" in sys.argv[2:]

IDS = [
    "plain",
    "=1+1",
    "-5",
    "@cmd",
    "comma,quote\"semi;",
    "back\\slash\\n",
    "line\nbreak\r\nend",
    "\u00e9\u4e16\u754c\U0001f600",
    " {x=\"y\"} 5 # EOF",
    "tab\there",
    "nul\0byte",
]
if sys.version_info < (3, 11):
    print("skipped: csv of Python before 3.11 reads no NUL")
    IDS.pop()
METADATA = [None, "{}", "[1, 2.5, null]", '{"a": "\\u0000\\n", "b": {"c": [[]]}}', "-7", "true"]
VALUES = [0, -1.5, 1e300, 5e-324, 0.1 + 0.2, 123456789.125, -0.0]
START = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z in microseconds
ROWS = 400


def missing(reader):
    if REQUIRE:
        sys.exit(f"FAILED: no {reader}, and --require was given")
    print(f"skipped: {reader} is not installed")


def stamp(micros):
    from datetime import datetime, timedelta, timezone

    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=micros)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Place:
    def __init__(self, directory):
        self.dir = Path(directory)
        self.store = self.dir / "store"

    def run(self, *args):
        command = [COMMAND, "--store", str(self.store), *map(str, args)]
        done = subprocess.run(command, capture_output=True)
        if done.returncode != 0:
            sys.exit(f"FAILED: {' '.join(command)}: {done.returncode}\n{done.stderr.decode()}")
        return done.stdout

    def rows(self, table):
        page = json.loads(self.run("query", "metrics", "--table", table, "--limit", "all", "--json"))
        return page["rows"][::-1]

    def fill(self):
        for table in ("task", "agent", "swarm"):
            lines = []
            for number in range(ROWS):
                row = {"timestamp": stamp(START + number * 977_777)}
                metadata = METADATA[number % len(METADATA)]
                row["metadata"] = None if metadata is None else json.loads(metadata)
                this, other = IDS[number % len(IDS)], IDS[number // len(IDS) % len(IDS)]
                if table == "task":
                    row.update(task_id=f"{number}{this}", agent_id=other, success=number % 3 > 0)
                    row.update(duration_ms=None if number % 7 == 0 else number * 37 - 50)
                    row.update(tokens_used=number)
                else:
                    row.update({f"{table}_id": this, "metric_type": other})
                    row.update(value=VALUES[number % len(VALUES)])
                lines.append(json.dumps(row))
            path = self.dir / f"{table}.jsonl"
            path.write_text("\n".join(lines) + "\n")
            self.run("import", path, "--table", table, "--keep")


def same(got, expected, what):
    if got != expected:
        first = (got, expected)
        if isinstance(got, list) and len(got) == len(expected):
            first = next((g, e) for g, e in zip(got, expected) if g != e)
        sys.exit(f"FAILED: {what}: read {first[0]!r}, expected {first[1]!r}")
    print(f"ok: {what}")


def check_json(place):
    for table in ("task", "agent", "swarm"):
        expected = place.rows(table)
        text = place.run("export", "--format", "jsonl", "--table", table).decode()
        same([json.loads(line) for line in text.split("\n")[:-1]], expected, f"JSON lines, {table}")
    flat = json.loads(place.run("export", "--format", "json", "--flat"))
    for table in ("task", "agent", "swarm"):
        same(flat[f"{table}_metrics"], place.rows(table), f"JSON, flat, {table}")
    nested = json.loads(place.run("export", "--format", "json", "--pretty", "--swarm", "plain=plain"))
    agents = [*nested["ungrouped"]["agents"], *(a for s in nested["swarms"] for a in s["agents"])]
    tasks = [task for agent in agents for task in agent["tasks"]]
    order = lambda row: (row["timestamp"], row["task_id"])
    same(sorted(tasks, key=order), sorted(place.rows("task"), key=order), "JSON, nested, tasks")
    for flag in ((), ("--flat",)):
        json.loads(place.run("export", "--format", "grafana", *flag))
    series = json.loads(place.run("export", "--format", "grafana", "--table", "agent"))
    rising = all(p[0][1] < p[1][1] for s in series for p in zip(s["datapoints"], s["datapoints"][1:]))
    same(rising, True, "Grafana, points rise")


def cell(value):
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else repr(value)


def check_csv(place):
    for table in ("task", "agent", "swarm"):
        rows = place.rows(table)
        names = list(rows[0])
        raw = place.run("export", "--format", "csv", "--table", table, "--raw").decode()
        found = list(csv.DictReader(io.StringIO(raw, newline="")))
        same([row["timestamp"] for row in found], [row["timestamp"] for row in rows], f"CSV, {table}, times")
        for name in names:
            if name == "metadata":
                got = [json.loads(row[name]) if row[name] else None for row in found]
                expected = [row[name] for row in rows]
            elif name in ("value", "duration_ms", "tokens_used"):
                got = [float(row[name]) if row[name] else None for row in found]
                expected = [None if row[name] is None else float(row[name]) for row in rows]
            else:
                got = [row[name] for row in found]
                expected = [cell(row[name]) for row in rows]
            same(got, expected, f"CSV, {table}, {name}")
        safe = place.run("export", "--format", "csv", "--table", table).decode()
        texts = [n for n in names if n.endswith("_id") or n in ("metric_type", "metadata")]
        formulas = [
            row[name]
            for row in csv.DictReader(io.StringIO(safe, newline=""))
            for name in texts
            if row[name].startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
        ]
        same(formulas, [], f"CSV, {table}, no cell is a formula")
    path = place.dir / "all.csv.gz"
    place.run("export", "--output", path)
    with gzip.open(path, "rt", newline="") as file:
        same(sum(1 for _ in csv.reader(file)), 3 * ROWS + 1, "CSV of all tables, compressed")
    if shutil.which("gzip"):
        same(subprocess.run(["gzip", "-t", path]).returncode, 0, "gzip -t")
    else:
        missing("gzip")


# Names of elements in OpenDocument files.
OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"


def sheet(path):
    """The cells of a flat OpenDocument sheet: (type, number, text if plain), row by row."""
    rows = []
    for row in ElementTree.parse(path).iter(f"{TABLE}table-row"):
        cells = []
        for cell in row.iter(f"{TABLE}table-cell"):
            if cell.get(f"{TABLE}formula"):
                sys.exit(f"FAILED: LibreOffice, a formula: {cell.get(f'{TABLE}formula')!r}")
            kind, number = cell.get(f"{OFFICE}value-type"), cell.get(f"{OFFICE}value")
            lines = cell.findall(f"{TEXT}p")
            text = lines[0].text if len(lines) == 1 else None
            repeated = int(cell.get(f"{TABLE}number-columns-repeated", 1))
            cells += [(kind, number and float(number), text)] * repeated
        rows.append(cells)
    return rows


def check_spreadsheet(place):
    """Numbers are numbers in LibreOffice, and what looks like a formula is text."""
    if not shutil.which("soffice"):
        missing("soffice (LibreOffice Calc)")
        return
    tables = ("task", "agent", "swarm")
    files = [place.dir / f"{table}.csv" for table in tables]
    for table, path in zip(tables, files):
        place.run("export", "--table", table, "--output", path)
    profile = (place.dir / "office").as_uri()
    # Separator, quote, UTF-8, from the first line on: what one chooses when opening the file.
    convert = ["soffice", f"-env:UserInstallation={profile}", "--headless", "--infilter=CSV:44,34,76,1"]
    convert += ["--convert-to", "fods", "--outdir", place.dir / "sheets", *files]
    done = subprocess.run(convert, capture_output=True, timeout=300)
    same(done.returncode, 0, "soffice --convert-to fods")
    for table in tables:
        header, *found = sheet(place.dir / "sheets" / f"{table}.fods")
        names = [text for _, _, text in header]
        rows = place.rows(table)
        same(len(found), len(rows), f"LibreOffice, {table}, rows")
        for name in ("duration_ms", "tokens_used", "value"):
            if name in names:
                at = names.index(name)
                # Numbers without all of their digits it takes for text.
                pairs = [(c[at], r[name]) for c, r in zip(found, rows) if r[name] != 5e-324]
                got = [cell[:2] for cell, _ in pairs]
                expected = [(None, None) if n is None else ("float", float(n)) for _, n in pairs]
                close = [
                    (kind, e[1]) if g is not None and abs(g - e[1]) <= abs(e[1]) * 1e-14 else (kind, g)
                    for (kind, g), e in zip(got, expected)
                ]
                same(close, expected, f"LibreOffice, {table}, {name}")
        for name in names:
            if name.endswith("_id") or name in ("metric_type", "timestamp"):
                at = names.index(name)
                same({cells[at][0] for cells in found}, {"string"}, f"LibreOffice, {table}, {name}")
        owner = f"{table}_id" if table != "task" else "agent_id"
        got = {cells[names.index(owner)][2] for cells in found}
        same({"plain", "'=1+1", "'-5", "'@cmd"} - got, set(), f"LibreOffice, {table}, guarded")


def newest(place, table):
    """The newest value of each gauge; of one millisecond there is one row here."""
    last = {}
    for row in place.rows(table):
        last[(row[f"{table}_id"], row["metric_type"])] = row["value"]
    return last


def check_prometheus(place):
    try:
        from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
        from prometheus_client.parser import text_string_to_metric_families as prometheus
    except ImportError:
        missing("prometheus_client for Python")
        return
    for name, parse in (("prometheus", prometheus), ("openmetrics", open_metrics)):
        families = {f.name: f for f in parse(place.run("export", "--format", name).decode())}
        for table in ("agent", "swarm"):
            samples = families[f"tallystone_{table}_metric"].samples
            got = {(s.labels[f"{table}_id"], s.labels["metric_type"]): s.value for s in samples}
            same(len(got), len(samples), f"{name}, {table}, no series twice")
            same(got, newest(place, table), f"{name}, {table}, newest values")
        counted = {}
        for row in place.rows("task"):
            key = (row["agent_id"], str(row["success"]).lower())
            counted[key] = counted.get(key, 0) + 1
        samples = families["tallystone_tasks"].samples
        got = {(s.labels["agent_id"], s.labels["success"]): s.value for s in samples if s.value}
        same(got, counted, f"{name}, tasks")
        kinds = {name: family.type for name, family in families.items()}
        same(kinds["tallystone_task_duration_seconds"], "summary", f"{name}, types")
    text = place.run("export", "--format", "openmetrics", "--all-samples").decode()
    families = {f.name: f for f in open_metrics(text)}
    for table in ("agent", "swarm"):
        samples = families[f"tallystone_{table}_metric"].samples
        got = sorted((s.labels[f"{table}_id"], s.labels["metric_type"], s.value) for s in samples)
        rows = place.rows(table)
        expected = sorted((r[f"{table}_id"], r["metric_type"], r["value"]) for r in rows)
        same(got, expected, f"openmetrics, {table}, all samples")


def check_promtool(place):
    if not shutil.which("promtool"):
        missing("promtool")
        return
    text = place.run("export", "--format", "prometheus")
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
    same((checked.returncode, checked.stderr), (0, b""), "promtool check metrics")
    path = place.dir / "samples.om"
    place.run("export", "--format", "openmetrics", "--all-samples", "--output", path)
    blocks = place.dir / "blocks"
    create = ["promtool", "tsdb", "create-blocks-from", "openmetrics", path, blocks]
    made = subprocess.run(create, capture_output=True)
    same((made.returncode, made.stderr), (0, b""), "promtool tsdb create-blocks-from openmetrics")
    (blocks / "wal").mkdir(exist_ok=True)
    dumped = subprocess.run(["promtool", "tsdb", "dump", blocks], capture_output=True)
    same(dumped.returncode, 0, "promtool tsdb dump")
    lines = [line for line in path.read_bytes().split(b"\n") if line and line[:1] != b"#"]
    same(dumped.stdout.count(b'__name__="tallystone_'), len(lines), "samples in the blocks")


with tempfile.TemporaryDirectory() as directory:
    place = Place(directory)
    place.fill()
    check_json(place)
    check_csv(place)
    check_spreadsheet(place)
    check_prometheus(place)
    check_promtool(place)
