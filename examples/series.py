"""Find a stuck sensor and a burst of vibration in the readings of a machine."""

from __future__ import annotations

import numpy as np

import genad
from genad.data.series import as_series


def main() -> None:
    """Fit the windows of a quiet week, then judge a week with two faults."""
    rng = np.random.default_rng(0)
    hours = np.arange(2 * 7 * 24)
    load = np.sin(2 * np.pi * hours / 24) + 0.05 * rng.normal(size=hours.size)
    heat = 0.8 * np.roll(load, 2) + 0.05 * rng.normal(size=hours.size)
    vibration = 0.3 * np.abs(load) + 0.05 * rng.normal(size=hours.size)
    load[210:218] = load[210]  # the sensor is stuck
    vibration[290:293] += 1.5
    time = np.datetime64("2024-01-01", "ns") + hours * np.timedelta64(1, "h")
    columns = {"time": time, "load": load, "heat": heat, "vibration": vibration}
    weeks = [{name: values[part] for name, values in columns.items()}
             for part in (slice(0, 168), slice(168, None))]  # fmt: skip

    detector = genad.Windowed(genad.Autoencoder(), window=12, spread="step")
    detector.fit(as_series(weeks[0]))
    found = detector.detect(as_series(weeks[1]), fdr=0.1)

    print(found)
    for event in found.events(gap=2):
        main_part = found.explain(event.peak, parts=1).parts[0]
        print(f"{event.start_time} to {event.stop_time}: {main_part.name} is "
              f"{main_part.observed:.2f}, expected {main_part.expected:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
