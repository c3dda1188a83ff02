"""A child process that is one peer: `worker.py PEER DUMP FOLDER MODE`.

Modes: `load` (bulk, then what settles), `batches N`, `open` (a fresh process opens and asks Q1)
and `serve`, which reads a question a line on stdin and answers one JSON line each, as our own
harness does. Times are taken in here, so no pipe is in them.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import engines
from data import Dump, Parameters

#: Rows of one durable batch.
BATCH_ROWS = 100


def anonymous_bytes() -> int:
    """Anonymous memory of this process: mapped files do not count."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def timed(call: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return (time.perf_counter() - start) * 1e3, result


def load(engine: Any, dump: Dump) -> None:
    engine.prepare(dump)
    os.sync()
    say(ready=True, base=anonymous_bytes())
    sys.stdin.readline()
    tasks, _ = timed(engine.load_tasks)
    gauges, _ = timed(engine.load_gauges)
    say(tasks_ms=tasks, gauges_ms=gauges)
    sys.stdin.readline()
    settle, _ = timed(engine.settle)
    engine.close()
    tasks_bytes, gauges_bytes = engine.sizes()
    say(settle_ms=settle, tasks_bytes=tasks_bytes, gauges_bytes=gauges_bytes)


def batches(engine: Any, dump: Dump, count: int) -> None:
    rows = dump.tasks.combine_chunks()
    count = min(count, rows.num_rows // BATCH_ROWS)
    tables = [rows.slice(at * BATCH_ROWS, BATCH_ROWS).combine_chunks() for at in range(count)]
    os.sync()
    say(ms=[timed(commit)[0] for commit in engine.batches(tables)], rows=BATCH_ROWS)


def reopen(engine: Any) -> None:
    opened, _ = timed(engine.open)
    first, _ = timed(engine.first)
    say(open_ms=opened, first_ms=first)


def serve(engine: Any) -> None:
    say(ready=True, base=anonymous_bytes(), version=engine.version())
    sys.stdin.readline()
    engine.open()
    questions = engine.questions()
    say(questions=list(questions))
    for line in sys.stdin:
        question = line.strip()
        if question not in questions:
            say(q=question, error="not a question of this engine")
            continue
        ask, answer = questions[question]
        took, result = timed(ask)
        say(q=question, ms=took, answer=answer(result))
        del result


def main() -> None:
    name, dump_folder, folder, mode, *rest = sys.argv[1:]
    # A million rows as Python objects would be walked again and again: no engine's doing.
    gc.disable()
    engine = engines.find(name)(Path(folder), Parameters.read(Path(dump_folder)))
    if mode == "load":
        load(engine, Dump(Path(dump_folder)))
    elif mode == "batches":
        batches(engine, Dump(Path(dump_folder)), int(rest[0]))
    elif mode == "open":
        reopen(engine)
    else:
        serve(engine)
    engine.close()


main()
