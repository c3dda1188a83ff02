#!/usr/bin/env python3
"""The same questions on rival engines and on ours, in turns, every answer compared.

python3 benches/peers/run.py [--rows 1000000] [--peers duckdb,polars,chdb,sqlite,datafusion]
                             [--only Q1,Q2] [--rounds 6] [--smoke] [--json FILE] [--markdown FILE]

README.md beside this file says how each engine is driven. Fails if any answer differs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
REQUIREMENTS = HERE / "requirements.txt"
PEERS = ["duckdb", "polars", "chdb", "sqlite", "datafusion"]
SMOKE_ROWS = 20_000


def target_folder() -> Path:
    command = ["cargo", "metadata", "--format-version", "1", "--no-deps"]
    return Path(json.loads(subprocess.check_output(command, cwd=ROOT))["target_directory"])


def enter_environment(folder: Path) -> None:
    """Goes on in the virtual environment, made anew if the requirements have changed."""
    python = folder / "bin" / "python"
    stamp = folder / "requirements.txt"
    wanted = REQUIREMENTS.read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing {REQUIREMENTS.relative_to(ROOT)}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        subprocess.check_call([str(python), "-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS)])
        stamp.write_text(wanted)
    if Path(sys.prefix).resolve() != folder.resolve():
        os.execv(python, [str(python), "-B", str(HERE / "run.py"), *sys.argv[1:]])


def build_harness() -> Path:
    """Our side, built as cargo builds benchmarks; the path of the program."""
    command = ["cargo", "bench", "--bench", "workload", "--no-run", "--message-format", "json-render-diagnostics"]
    lines = subprocess.check_output(command, cwd=ROOT, text=True).splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    programs = [each["executable"] for each in found if each.get("target", {}).get("name") == "workload"]
    return Path(next(filter(None, programs)))


def build_program(name: str, target: Path) -> Path:
    """A peer that is a Rust program: a workspace of its own, so that ours knows nothing of it."""
    manifest = HERE / "kv" / "Cargo.toml"
    command = ["cargo", "build", "--release", "--locked", "--manifest-path", str(manifest)]
    subprocess.check_call([*command, "--target-dir", str(target / "kv")], cwd=HERE / "kv")
    return target / "kv" / "release" / "peers-kv"


def machine() -> dict[str, Any]:
    cpu = next(
        (line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")),
        platform.machine(),
    )
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(pages / 2**30),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, help="rows of each table (1000000)")
    parser.add_argument("--peers", default=",".join(PEERS), help="also: polars-memory, redb")
    parser.add_argument("--only", help="these questions only, such as Q1,Q2")
    parser.add_argument("--rounds", type=int, help="turns of each side (6; at least 5 for figures to keep)")
    parser.add_argument("--smoke", action="store_true", help=f"{SMOKE_ROWS:,} rows, 2 rounds: shows that all runs")
    parser.add_argument("--json", type=Path, help="write every figure there")
    parser.add_argument("--markdown", type=Path, help="write the tables there")
    parser.add_argument("--publish", action="store_true", help="put the tables into the README files")
    parser.add_argument("--keep", action="store_true", help="leave dump and databases below the target directory")
    arguments = parser.parse_args()
    arguments.rows = arguments.rows or (SMOKE_ROWS if arguments.smoke else 1_000_000)
    arguments.rounds = arguments.rounds or (2 if arguments.smoke else 6)
    return arguments


def names(text: str, known: list[str], what: str) -> list[str]:
    """A list from the command line, in the order of what is known."""
    lower = {name.lower(): name for name in known}
    asked = [name.strip().lower() for name in text.split(",") if name.strip()]
    if unknown := [name for name in asked if name not in lower]:
        sys.exit(f"{', '.join(unknown)}: no such {what}; there are {', '.join(known)}")
    return [name for name in known if name.lower() in asked]


def main() -> int:
    arguments = parse()
    below = target_folder() / "peers"
    enter_environment(below / "venv")

    # From here on in the environment, where these find what they import.
    import engines
    import measure
    import report
    from children import Failure
    from data import Dump
    from questions import QUESTIONS, Checker

    peers = names(arguments.peers, engines.NAMES, "peer")
    wanted = names(arguments.only, list(QUESTIONS), "question") if arguments.only else list(QUESTIONS)
    scratch = below / f"run-{arguments.rows}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        print("building our side", flush=True)
        programs = {name: build_program(name, below) for name in peers if name in engines.PROGRAMS}
        places = measure.Places(ROOT, build_harness(), scratch, programs)
        command = [str(places.harness), "--bench", "dump", str(places.dump), "--rows", str(arguments.rows)]
        subprocess.check_call(command, cwd=ROOT)
        checker = Checker(Dump(places.dump))
        results = measure.run(places, peers, wanted, arguments.rows, arguments.rounds, checker, arguments.smoke)
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    finally:
        if not arguments.keep:
            shutil.rmtree(scratch, ignore_errors=True)

    facts = {
        "rows": arguments.rows,
        "rounds": arguments.rounds,
        "peers": peers,
        "in_memory": [name for name in peers if engines.is_in_memory(name)],
        **machine(),
        **vars(results),
    }
    print("\n" + report.terminal(facts))
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")
    if arguments.markdown:
        arguments.markdown.write_text(report.markdown(facts))
    if arguments.publish:
        report.publish(report.markdown(facts), ROOT / "benches" / "README.md", "peers")
        report.publish(report.summary(facts), ROOT / "README.md", "peers")
    for mismatch in results.mismatches:
        print(f"MISMATCH {mismatch}", file=sys.stderr)
    compared = sum(len(sides) - 1 for question, sides in results.questions.items() if question in QUESTIONS)
    print(f"\n{compared} answers of peers compared with ours, {len(results.mismatches)} differ")
    return 1 if results.mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
