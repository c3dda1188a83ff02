"""The sides as child processes: ours and each peer, asked the same way, watched the same way."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

#: Where a peer's own words go: the log is shown if it fails.
LOG_LINES_SHOWN = 20


class Failure(Exception):
    """A child ended early, or said what nobody expects."""


class Child:
    """A process that answers a line of JSON to a line of text."""

    def __init__(self, name: str, command: list[str], folder: Path, log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("a") as errors:
            self.process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )

    def read(self) -> dict[str, Any]:
        assert self.process.stdout
        while line := self.process.stdout.readline():
            # Some engines greet on stdout.
            if line.startswith("{"):
                return json.loads(line)
        words = "\n".join(self.log.read_text().splitlines()[-LOG_LINES_SHOWN:])
        raise Failure(f"{self.name} ended early ({self.process.wait()}):\n{words}")

    def say(self, text: str = "") -> None:
        assert self.process.stdin
        try:
            self.process.stdin.write(text + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # `read` says why.

    def ask(self, question: str) -> dict[str, Any]:
        self.say(question)
        return self.read()

    def end(self) -> None:
        """Lets it finish; a child that does not is ended."""
        assert self.process.stdin
        try:
            self.process.stdin.close()
            self.process.wait(timeout=60)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()


class Watch:
    """The most anonymous memory that a child had while this was entered."""

    def __init__(self, child: Child, seconds: float = 0.002) -> None:
        self.status = Path(f"/proc/{child.process.pid}/status")
        self.seconds = seconds
        self.most = 0
        self.done = threading.Event()

    def look(self) -> int:
        for line in self.status.read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        return 0

    def _run(self) -> None:
        while not self.done.wait(self.seconds):
            try:
                self.most = max(self.most, self.look())
            except OSError:
                return

    def __enter__(self) -> Watch:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()


class Side:
    """Ours or a peer, during the questions: its times and its first answer to each."""

    #: Most asks of one turn, and the time after which a turn ends.
    ASKS_MAX = 5
    TURN_MS = 40.0
    #: What takes longer is not asked once untimed before each turn.
    WARM_UP_MS_MAX = 100.0

    def __init__(self, name: str, child: Child) -> None:
        self.name = name
        self.child = child
        self.unknown: set[str] = set()
        self.times: dict[str, list[float]] = {}
        self.answers: dict[str, list[Any]] = {}

    def _once(self, question: str) -> float | None:
        reply = self.child.ask(question)
        if "error" in reply:
            self.unknown.add(question)
            return None
        self.answers.setdefault(question, reply["answer"])
        return float(reply["ms"])

    def turn(self, question: str) -> None:
        if question in self.unknown:
            return
        times = self.times.setdefault(question, [])
        if not times or times[-1] < self.WARM_UP_MS_MAX:
            self._once(question)
        spent = 0.0
        for _ in range(self.ASKS_MAX):
            took = self._once(question)
            if took is None:
                return
            times.append(took)
            spent += took
            if spent > self.TURN_MS:
                break

    def figures(self, question: str) -> dict[str, float] | None:
        times = self.times.get(question)
        if not times:
            return None
        return {"min": min(times), "median": statistics.median(times), "asks": len(times)}


def synced_write_ms(folder: Path, count: int = 200, size: int = 4096) -> float:
    """What this machine takes to append some bytes and sync them: below it no batch is durable."""
    path = folder / "bare"
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(count):
            start = time.perf_counter()
            file.write(b"\1" * size)
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - start) * 1e3)
    path.unlink()
    return statistics.median(times)
