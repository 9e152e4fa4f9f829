"""Find the two jobs of a log that went wrong, and say why in words."""

from __future__ import annotations

import genad


def lines(jobs: int, broken: tuple[int, ...], first: int) -> list[str]:
    """Write the messages of jobs, in the order in which a machine would: their steps interleaved."""
    steps = {
        job: ["accepted", "loaded", *["worked on"] * (1 + job % 3), "stored"] for job in range(first, first + jobs)
    }
    for job in broken:
        steps[job] = ["accepted", "loaded", "rolled back"]
    found = [
        (3 * job + 5 * k, f"job {step} for req_id={job:05d}x") for job, of in steps.items() for k, step in enumerate(of)
    ]
    return [text for _, text in sorted(found)]


def main() -> None:
    """Learn from a normal log, judge another one, and explain its two worst sessions."""
    by = {"by": "id", "pattern": r"req_id=(\w+)"}
    normal = genad.Log.from_messages(lines(500, (), 0))
    new = genad.Log.from_messages(lines(100, (1040, 1077), 1000))
    found = genad.detect(new, train=normal, session=by, method="directly_follows")

    print(found)
    for i in found.top(2):
        print(found.sessions.names[i], found.why(int(i)))


if __name__ == "__main__":
    main()
