"""Find a stuck sensor and a burst of vibration in a week of a machine's readings."""

from __future__ import annotations

import numpy as np

import genad


def main() -> None:
    """Learn from four quiet weeks, then judge a week with two faults."""
    rng = np.random.default_rng(0)
    hours = np.arange(5 * 7 * 24)
    load = np.sin(2 * np.pi * hours / 24) + 0.05 * rng.normal(size=hours.size)
    heat = 0.8 * np.roll(load, 2) + 0.05 * rng.normal(size=hours.size)
    shake = 0.3 * np.abs(load) + 0.05 * rng.normal(size=hours.size)
    load[702:726] = load[702]  # the sensor is stuck
    shake[790:793] += 1.5
    time = np.datetime64("2024-01-01", "s") + hours * np.timedelta64(3600, "s")
    columns = {"time": time, "load": load, "heat": heat, "shake": shake}
    quiet = {name: values[:672] for name, values in columns.items()}
    week = {name: values[672:] for name, values in columns.items()}

    detector = genad.Windowed(genad.Autoencoder(), window=12, spread="step").fit(quiet)
    found = detector.detect(week)

    print(found)
    for event in found.events(gap=3):
        part = found.explain(event.peak, parts=1).parts[0]
        said = f"{part.name} is {part.observed:.2f}, expected {part.expected:.2f}"
        print(f"{event.start_time} to {event.stop_time}: {said}")


if __name__ == "__main__":
    main()
