"""Tables of a run: for the terminal, and as markdown."""

from __future__ import annotations

from typing import Any

from questions import QUESTIONS

OURS = "tallystone"


def short(value: float) -> str:
    """Three digits, no exponent."""
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.4f}" if value < 0.1 else f"{value:.3f}"


def ratio(value: float) -> str:
    return f"{short(value)}x" if value < 10 else f"{value:.0f}x"


def question_rows(facts: dict[str, Any], figure: str) -> list[list[str]]:
    """Ours, each peer, the best peer and how many times our time that is."""
    peers: list[str] = facts["peers"]
    ranked: list[str] = [name for name in peers if name not in facts["in_memory"]]
    rows = [["", "question", "ours", *peers, "best peer", "peer / ours"]]
    for question, sides in facts["questions"].items():
        title = QUESTIONS[question].asks if question in QUESTIONS else "fixed cost: Q1 of a table of one row"
        times = {name: sides[name][figure] for name in [OURS, *peers] if name in sides}
        best = min((name for name in ranked if name in times), key=times.__getitem__, default=None)
        both = best is not None and OURS in times
        rows.append(
            [
                question if question in QUESTIONS else "-",
                title,
                *(short(times[name]) if name in times else "-" for name in [OURS, *peers]),
                best or "-",
                ratio(times[best] / times[OURS]) if both else "-",
            ]
        )
    return rows


#: Key of a figure, what it is, what one unit of it is divided by.
LOADS = [
    ("tasks_rows_s", "tasks, bulk, durable: M rows/s", 1e6),
    ("gauges_rows_s", "gauges, bulk, durable: M rows/s", 1e6),
    ("settle_ms", "then sort, merge, index: ms", 1),
    ("batch_rows_s", "tasks, batches of 100, each synced: k rows/s", 1e3),
    ("batch_ms", "one such batch, median: ms", 1),
    ("bare_sync_ms", "4 KiB appended and synced beside it: ms", 1),
    ("tasks_bytes_row", "tasks: bytes a row on disk", 1),
    ("gauges_bytes_row", "gauges: bytes a row on disk", 1),
    ("open_ms", "open in a new process: ms", 1),
    ("first_ms", "then the first Q1: ms", 1),
    ("load_mib", "memory of the bulk load over its input: MiB", 1),
    ("questions_mib", "memory of all questions over the base: MiB", 1),
]


def load_rows(facts: dict[str, Any]) -> list[list[str]]:
    sides = [OURS, *facts["peers"]]
    rows = [["", "ours", *facts["peers"]]]
    for key, title, unit in LOADS:
        found = [facts["loads"].get(side, {}).get(key) for side in sides]
        rows.append([title, *("-" if value is None else short(value / unit) for value in found)])
    return rows


def error_rows(facts: dict[str, Any]) -> list[list[str]]:
    """How far the estimates are off."""
    sides = [OURS, *facts["peers"]]
    rows = [["rank error of", "ours", *facts["peers"]]]
    for question, found in facts["questions"].items():
        errors = [found.get(side, {}).get("rank_error") for side in sides]
        if any(error is not None for error in errors):
            rows.append([question, *("-" if error is None else f"{error:.5f}" for error in errors)])
    return rows


def heading(facts: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return [
        f"{facts['rows']:,} tasks, {facts['rows']:,} gauges; {facts['rounds']} rounds; {facts['cpu']},"
        f" {facts['cores']} cores, {facts['memory_gib']} GiB, {facts['system']}.",
        f"{versions}; Python {facts['python']}.",
    ]


def terminal(facts: dict[str, Any]) -> str:
    parts = ["\n".join(heading(facts))]
    parts.append("Milliseconds, minimum of all rounds:\n" + aligned(question_rows(facts, "min")))
    parts.append("Milliseconds, median:\n" + aligned(question_rows(facts, "median")))
    if len(error_rows(facts)) > 1:
        parts.append(aligned(error_rows(facts)))
    parts.append(aligned(load_rows(facts)))
    return "\n\n".join(parts)


def aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows)]
    is_text = [any(not cell[:1].isdigit() and cell != "-" for cell in column[1:]) for column in zip(*rows)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if left else cell.rjust(width) for cell, width, left in zip(row, widths, is_text)
        ).rstrip()
        for row in rows
    )


def as_table(rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def markdown(facts: dict[str, Any]) -> str:
    table = as_table
    parts = [
        "\n".join(heading(facts)),
        "Milliseconds, minimum of all rounds. The ratio is the best peer that keeps its data on disk,"
        " divided by ours.",
        table(question_rows(facts, "min")),
        "Milliseconds, median.",
        table(question_rows(facts, "median")),
    ]
    if len(error_rows(facts)) > 1:
        parts += ["Rank error of the estimates, as a share of the rows.", table(error_rows(facts))]
    parts += ["Loading, size, opening, memory.", table(load_rows(facts))]
    if facts["mismatches"]:
        parts += ["**Answers differ:**", "\n".join(f"- {each}" for each in facts["mismatches"])]
    return "\n\n".join(parts) + "\n"


def publish(text: str, path: Any, name: str) -> None:
    """Puts the text between the marks of that name in a file."""
    before, after = f"<!-- {name} -->", f"<!-- /{name} -->"
    page = path.read_text()
    start, end = page.index(before) + len(before), page.index(after)
    path.write_text(f"{page[:start]}\n{text.strip()}\n{page[end:]}")


def summary(facts: dict[str, Any]) -> str:
    """For the first page: each question, ours and the best peer."""
    rows = [["question", "ours, ms", "best peer, ms", "ratio"]]
    for line in question_rows(facts, "min")[1:]:
        asks, ours, best = line[1], line[2], line[-2]
        if best in facts["peers"] and line[0] != "-":
            theirs = line[3 + facts["peers"].index(best)]
            rows.append([asks, ours, f"{theirs} ({best})", line[-1]])
    return "\n\n".join([" ".join(heading(facts)), as_table(rows)])
