"""The rows that the benchmarks have written, as one table in Markdown.

python benchmarks/table.py runs/bench.jsonl
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

SAME = ("what", "setting", "threads", "machine")  # of such rows the last one counts
COLUMNS = ("what", "setting", "threads", "rounds", "value", "aim", "verdict")


def main() -> None:
    lines = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    rows = {tuple(row[key] for key in SAME): row for row in map(json.loads, lines)}.values()
    print("| " + " | ".join(COLUMNS) + " |")
    print("|---" * len(COLUMNS) + "|")
    for row in rows:
        print("| " + " | ".join(str(row[column]) for column in COLUMNS) + " |")
    print("\nMedian (smallest to largest) of interleaved rounds, on:\n")
    for text in sorted({row["machine"] for row in rows}):
        print(f"- {text}")


if __name__ == "__main__":
    main()
