"""Watch readings that arrive one by one while what is normal drifts away."""

from __future__ import annotations

import numpy as np

import genad


def main() -> None:
    """Learn the first readings, then score each of the rest before learning from it."""
    rng = np.random.default_rng(0)
    n = 3000
    drift = np.linspace(0, 3, n)[:, None]
    readings = drift + rng.normal(size=(n, 4))
    faults = [1200, 2000, 2800]
    readings[faults] += 8

    detector = genad.create("mem_stream", threshold=genad.Conformal(alpha=0.01))
    detector.fit(readings[:512])
    for start in range(512, n, 500):
        found = detector.detect_stream(readings[start : start + 500])
        flagged = np.flatnonzero(found.is_anomaly) + start
        worst = start + int(found.scores.argmax())
        print(f"rows {start} to {start + len(found) - 1}: {len(flagged)} flagged, worst row {worst}")


if __name__ == "__main__":
    main()
