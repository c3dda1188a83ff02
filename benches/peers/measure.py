"""Everything that is measured, one side after the other or in turns; knows no table and no page."""

from __future__ import annotations

import shutil
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from children import Child, Side, Watch, synced_write_ms
from questions import QUESTIONS, Checker

MIB = 1024 * 1024
WORKER = Path(__file__).resolve().parent / "worker.py"


@dataclass(frozen=True)
class Places:
    """Where things are; everything below the target directory of cargo."""

    root: Path
    harness: Path
    scratch: Path
    #: Peers that are programs of their own, not driven by worker.py.
    programs: dict[str, Path] = field(default_factory=dict)

    @property
    def dump(self) -> Path:
        return self.scratch / "dump"

    @property
    def ours(self) -> Path:
        return self.scratch / "ours"

    def engine(self, name: str) -> Path:
        return self.scratch / name

    def log(self, name: str) -> Path:
        return self.scratch / f"{name}.log"

    def worker(self, name: str, folder: Path, *mode: str) -> Child:
        """A peer in one of its modes."""
        program = [str(self.programs[name])] if name in self.programs else [sys.executable, "-B", str(WORKER), name]
        return Child(name, [*program, str(self.dump), str(folder), *mode], WORKER.parent, self.log(name))

    def serve(self, rows: int) -> Child:
        """Our side: builds its stores if they are not there, then answers."""
        command = [str(self.harness), "--bench", "serve", "--rows", str(rows), "--keep", str(self.ours)]
        return Child("tallystone", command, self.root, self.log("tallystone"))


@dataclass
class Results:
    """What a run found, as it is written to --json."""

    questions: dict[str, dict[str, Any]] = field(default_factory=dict)
    loads: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    mismatches: list[str] = field(default_factory=list)


def bulk(places: Places, name: str, rows: int) -> dict[str, Any]:
    """Rows a second of a durable bulk load, what settles afterwards, bytes a row, memory."""
    folder = places.engine(name)
    shutil.rmtree(folder, ignore_errors=True)
    child = places.worker(name, folder, "load")
    base = child.read()["base"]
    with Watch(child) as watch:
        loaded = child.ask("load")
    settled = child.ask("settle")
    child.end()
    return {
        "tasks_rows_s": rows / loaded["tasks_ms"] * 1e3,
        "gauges_rows_s": rows / loaded["gauges_ms"] * 1e3,
        "settle_ms": settled["settle_ms"],
        "tasks_bytes_row": settled["tasks_bytes"] / rows,
        "gauges_bytes_row": settled["gauges_bytes"] / rows,
        "load_mib": max(0, watch.most - base) / MIB,
    }


def batches(places: Places, name: str, count: int) -> dict[str, Any]:
    """Batches of 100 rows, each durable, beside a bare write and sync of the same disk."""
    folder = places.engine(f"{name}-batches")
    shutil.rmtree(folder, ignore_errors=True)
    child = places.worker(name, folder, "batches", str(count))
    found = child.read()
    child.end()
    bare = synced_write_ms(places.scratch)
    shutil.rmtree(folder, ignore_errors=True)
    if not found["ms"]:
        return {}
    middle = statistics.median(found["ms"])
    return {
        "batch_ms": middle,
        "batch_rows_s": found["rows"] / statistics.fmean(found["ms"]) * 1e3,
        "bare_sync_ms": bare,
    }


def opening(places: Places, name: str, times: int) -> dict[str, Any]:
    """Opens and asks Q1 in a new process each time; importing the package is not in it."""
    found = []
    for _ in range(times):
        child = places.worker(name, places.engine(name), "open")
        found.append(child.read())
        child.end()
    best = min(found, key=lambda each: each["open_ms"] + each["first_ms"])
    return {"open_ms": best["open_ms"], "first_ms": best["first_ms"]}


def bytes_below(folder: Path) -> int:
    """Of all files of a store, whatever they are for."""
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())


def start(places: Places, name: str) -> tuple[Child, int, str]:
    """A peer that has opened and waits for questions; its memory before it opened; its version."""
    child = places.worker(name, places.engine(name), "serve")
    ready = child.read()
    child.ask("open")
    return child, ready["base"], ready["version"]


def memory(child: Child, base: int, wanted: list[str]) -> float:
    """MiB over the base, at the most, while every question is asked twice."""
    with Watch(child) as watch:
        for question in wanted * 2:
            child.ask(question)
    child.end()
    return max(0, watch.most - base) / MIB


def in_turns(sides: list[Side], wanted: list[str], rounds: int) -> None:
    """Each question: ours, the peers, the peers backwards, ours, and so on."""
    for question in wanted:
        for number in range(rounds):
            for side in sides if number % 2 == 0 else reversed(sides):
                side.turn(question)


def check(sides: list[Side], wanted: list[str], checker: Checker) -> list[str]:
    """Every answer of a peer that differs from ours."""
    ours, *peers = sides
    differing = []
    for question in wanted:
        if question not in QUESTIONS:
            continue
        for peer in peers:
            theirs = peer.answers.get(question)
            if theirs is None:
                continue
            if question not in ours.answers:
                differing.append(f"{question}: {peer.name} answers, we do not")
            elif difference := checker.compare(question, ours.answers[question], theirs):
                differing.append(f"{question}, {peer.name}: {difference}")
    return differing


def run(
    places: Places, peers: list[str], wanted: list[str], rows: int, rounds: int, checker: Checker, is_smoke: bool
) -> Results:
    results = Results()
    children: list[Child] = []

    # Our stores are built by a child of their own, so that no trace of that is in the figures.
    shutil.rmtree(places.ours, ignore_errors=True)
    places.serve(rows).end()
    try:
        for name in peers:
            print(f"loading {name}", flush=True)
            results.loads[name] = (
                bulk(places, name, rows)
                | batches(places, name, 20 if is_smoke else 500)
                | opening(places, name, 1 if is_smoke else 5)
            )
        for name in peers:
            child, base, version = start(places, name)
            asked = [question for question in wanted if question != "one"]
            results.loads[name]["questions_mib"] = memory(child, base, asked)
            results.versions[name] = version
        results.loads["tallystone"] = {
            "tasks_bytes_row": bytes_below(places.ours / str(rows) / "task_metrics") / rows,
            "gauges_bytes_row": bytes_below(places.ours / str(rows) / "agent_metrics") / rows,
            "questions_mib": memory(places.serve(rows), 0, wanted),
        }

        print("asking", flush=True)
        children = [places.serve(rows), *(start(places, name)[0] for name in peers)]
        sides = [Side(child.name, child) for child in children]
        in_turns(sides, ["one", *wanted], rounds)
    finally:
        for child in children:
            child.end()
    for question in ["one", *wanted]:
        results.questions[question] = {
            side.name: figures for side in sides if (figures := side.figures(question))
        }
        for side in sides:
            if question in side.answers and question in QUESTIONS and side.name in results.questions[question]:
                errors = checker.rank_errors(question, side.answers[question])
                if errors:
                    results.questions[question][side.name]["rank_error"] = max(errors)
    results.mismatches = check(sides, wanted, checker)
    return results
