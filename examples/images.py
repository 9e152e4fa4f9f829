"""Find the scratched parts among photos of parts, say where, and show what they should have looked like."""

from __future__ import annotations

import numpy as np

import genad
from genad.synthesis import create_synthesizer


def main() -> None:
    """Learn from good parts, scratch some others, and look for the scratches."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:32, :32]
    ring = np.exp(-((np.hypot(rows - 16, columns - 16) - 9) ** 2) / 8)
    photos = np.clip(90 + 100 * ring + rng.normal(0, 4, (600, 32, 32)), 0, 255).astype(np.uint8)

    good = genad.Images.from_arrays(photos[:560])
    detector = genad.Autoencoder(latent=4, training=genad.Training(updates=300)).fit(good)

    made = create_synthesizer("cut_paste").fit(photos[:560, None]).synthesize(photos[560:, None], 10, random_state=0)
    both = genad.Images.from_arrays(np.concatenate([photos[560:], made.samples[:, 0]]))
    found = detector.detect(both)

    worst = int(found.top(1)[0])
    print(found)
    print(found.explain(worst))
    print(found.pixels.promise)
    print("scratched among the ten highest scores:", int((found.top(10) >= 40).sum()))


if __name__ == "__main__":
    main()
