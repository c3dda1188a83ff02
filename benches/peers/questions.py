"""The questions: what each asks, and how two answers to it are compared.

An answer is one flat list. README.md of this folder has the table; the two must agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from data import Dump

TOLERANCE = 1e-9
RANK_TOLERANCE = 0.01


@dataclass(frozen=True)
class Question:
    asks: str
    #: "exact", or "estimate": then ESTIMATES says which values are compared by rank.
    kind: str = "exact"


QUESTIONS: dict[str, Question] = {
    "Q1": Question("count, avg, min, max of all tasks"),
    "Q1p": Question("the same over unaligned 3.4 days"),
    "Q2": Question("exact p50, p95, p99, all"),
    "Q2a": Question("estimated p50, p95, p99, all", "estimate"),
    "Q3": Question("one agent, one hour: avg, p50, p95, p99"),
    "Q4": Question("hourly avg and count, 7 days"),
    "Q5": Question("top 5 agents by avg duration"),
    "Q6": Question("10 slowest tasks"),
    "Q7": Question("summary with exact percentiles"),
    "Q7a": Question("summary with estimates", "estimate"),
    "Q8": Question("all rows of one task id"),
    "Q9": Question("newest 100 rows of one agent"),
    "Q10c": Question("all tasks into owned columns"),
    "Q11": Question("all tasks to a CSV file"),
    "Q12": Question("all tasks to a file of JSON lines"),
    "A1": Question("one metric: count, avg, min, max"),
    "A2": Question("one metric: exact p50, p95, p99"),
    "A3": Question("one series, all its points"),
    "A4": Question("one metric, 5-minute avg over the fleet"),
    "A5": Question("last value of each agent"),
    "A6c": Question("all samples into owned columns"),
}

#: Where the estimated percentiles stand in the answers, and which they are.
ESTIMATES = {"Q2a": {0: 0.5, 1: 0.95, 2: 0.99}, "Q7a": {4: 0.95, 5: 0.99}}


def same(left: Any, right: Any) -> bool:
    """Equal; numbers of which one has a fraction, within the tolerance."""
    if isinstance(left, bool) or isinstance(right, bool):
        return bool(left) == bool(right)
    if isinstance(left, float) or isinstance(right, float):
        if not isinstance(left, (int, float)) or not isinstance(right, (int, float)):
            return False
        return math.isclose(left, right, rel_tol=TOLERANCE, abs_tol=0.0)
    return left == right


class Checker:
    """Compares answers; estimates by their rank among the dumped durations."""

    def __init__(self, dump: Dump) -> None:
        self.durations = np.sort(dump.numbers("tasks.duration_ms", "i64"))

    def rank_error(self, value: float, p: float) -> float:
        """How far `value` is from being the percentile, as a share of the rows."""
        count = len(self.durations)
        below = np.searchsorted(self.durations, value, "left") / count
        up_to = np.searchsorted(self.durations, value, "right") / count
        return max(0.0, below - p, p - up_to)

    def rank_errors(self, question: str, answer: list[Any]) -> list[float]:
        """How far each estimate is off; empty for an exact question."""
        return [self.rank_error(answer[at], p) for at, p in ESTIMATES.get(question, {}).items()]

    def compare(self, question: str, ours: list[Any], theirs: list[Any]) -> str | None:
        """What differs, or None."""
        if len(ours) != len(theirs):
            return f"{len(ours)} values with us, {len(theirs)} with the peer"
        estimates = ESTIMATES.get(question, {})
        for at, (left, right) in enumerate(zip(ours, theirs)):
            if at in estimates:
                for side, value in (("ours", left), ("the peer", right)):
                    if not isinstance(value, (int, float)):
                        return f"value {at} of {side}: {value!r} is no number"
                    error = self.rank_error(value, estimates[at])
                    if error > RANK_TOLERANCE:
                        return f"value {at} of {side}: {value} is {error:.4f} of the rows off"
            elif not same(left, right):
                return f"value {at}: {left!r} with us, {right!r} with the peer"
        return None
