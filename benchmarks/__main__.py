"""Run benchmarks by name: ``python -m benchmarks [NAME ...]``."""

from __future__ import annotations

import importlib
import sys

NAMES = (
    "startup", "tables", "selection", "feedback", "series", "ecg", "images", "restoration", "logs", "llm_series",
    "process", "cybersecurity", "store", "log_report", "speed", "image_speed", "memory", "cost",
)  # fmt: skip


def main(names: list[str]) -> int:
    """Run the named benchmarks, all when none is named; options after ``--`` go to a single one."""
    options = []
    if "--" in names:
        cut = names.index("--")
        names, options = names[:cut], names[cut + 1 :]
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        print(
            f"no such benchmark: {', '.join(unknown)}; there are {', '.join(NAMES)}",
            file=sys.stderr,
        )
        return 2
    for name in names or NAMES:
        print(f"== {name}", flush=True)
        importlib.import_module(f"benchmarks.{name}").main(options)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
