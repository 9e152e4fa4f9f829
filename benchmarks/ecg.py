"""How well are abnormal heart beats told from normal ones? Each beat is one window of 140 steps."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.common import DATA, keep, quiet, timed

METHODS = ("autoencoder", "denoising_autoencoder", "vae", "table_committee", "ppca", "nearest_memory")


def main(options: list[str]) -> None:  # noqa: ARG001 - all benchmarks are called alike
    quiet()
    import genad

    with np.load(DATA / "series" / "ecg5000_500.npz", allow_pickle=False) as file:
        beats, y = file["X"].astype(np.float32)[..., None], (file["cls"] != 1).astype(int)
    figures: dict[str, list[tuple[float, float, float]]] = {name: [] for name in METHODS}
    for seed in range(3):
        normal = np.random.default_rng(seed).permutation(np.flatnonzero(y == 0))
        half = len(normal) // 2
        test = np.r_[normal[half:], np.flatnonzero(y == 1)]
        for name in METHODS:
            detector = genad.create(name, random_state=seed, backbone="mlp")
            _, fit = timed(lambda detector=detector, train=normal[:half]: detector.fit(beats[train]))
            scores, score = timed(lambda detector=detector, test=test: detector.anomaly_score(beats[test]))
            found = roc_auc_score(y[test], scores), average_precision_score(y[test], scores), fit + score
            figures[name].append(found)
    rows = []
    for name, values in figures.items():
        auroc, ap, seconds = np.mean(values, axis=0)
        row = {"method": f"genad {name}", "AUROC": round(auroc, 4), "AP": round(ap, 4), "seconds": round(seconds, 2)}
        rows.append(row | {"lowest AUROC of 3 seeds": round(min(v[0] for v in values), 4)})
    keep(
        "ecg",
        "Abnormal heart beats",
        "ECG5000 (500 beats); train on half of the normal beats, test on the rest; 3 seeds, one thread",
        rows,
        ['Networks are multilayer perceptrons over the whole beat (`backbone="mlp"`).'],
    )  # fmt: skip
