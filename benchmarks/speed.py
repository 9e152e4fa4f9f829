"""How fast are fit and score, against PyOD and against the bare network? One thread, one run, ratios.

Seconds are those of the processor. What is compared runs in turn, and the quickest of its runs counts, so that other
work on the machine weighs little; it still slows most what uses most memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import sklearn.base
import torch

from benchmarks.common import keep, quiet


def _data(n: int, d: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(n, 6)) @ rng.normal(size=(6, d)) + 0.3 * rng.normal(size=(n, d))).astype(np.float32)


def interleaved(*works: Callable[[], object], runs: int) -> list[float]:
    """Return the fewest seconds of the processor that each piece of work took, the pieces run in turn."""
    seconds = [float("inf")] * len(works)
    for _ in range(runs):
        for k, work in enumerate(works):
            begin = time.process_time()
            work()
            seconds[k] = min(seconds[k], time.process_time() - begin)
    return seconds


def against_pyod() -> list[dict[str, object]]:
    """Compare the same architecture, epochs and batch, 20,000 x 20."""
    try:
        from pyod.models.auto_encoder import AutoEncoder
    except ImportError:
        print("pyod is not installed; its rows are left out")
        return []
    import genad

    X = _data(20_000, 20)

    def ours() -> None:
        detector = genad.Autoencoder(
            latent=32,
            backbone=genad.Backbone("mlp", hidden=(64,)),
            training=genad.Training(epochs=10, batch_size=32, lr=1e-3),
        )
        detector.fit(X).anomaly_score(X)

    def theirs() -> None:
        model = AutoEncoder(
            hidden_neuron_list=[64, 32],
            epoch_num=10,
            batch_size=32,
            batch_norm=False,
            dropout_rate=0.0,
            verbose=0,
        )
        model.fit(X)
        model.decision_function(X)

    a, b = interleaved(ours, theirs, runs=2)
    return [{"what": "AE 20-64-32-64-20, 10 epochs, batch 32, 20,000 rows: fit and score", "genad s": round(a, 2),
             "pyod s": round(b, 2), "ratio": f"{b / a:.1f}x", "limit": "at least 2x"}]  # fmt: skip


def ensembles() -> list[dict[str, object]]:
    """Compare 16 stacked members with one: the same updates on batches of the same size."""
    import genad

    def narrow(batch: int) -> genad.Autoencoder:
        training = genad.Training(updates=600, batch_size=batch)
        return genad.Autoencoder(latent=32, backbone=genad.Backbone("mlp", hidden=(64,)), training=training)

    X = _data(20_000, 20)
    compared = {
        "AEs 20-64-32-64-20, 600 updates of 32": narrow(32),
        "AEs 20-64-32-64-20, 600 updates of 64": narrow(64),
        "default autoencoders, tanh 20-64-64-5-64-64-20, 375 updates of 128": genad.Autoencoder(),
    }
    rows: list[dict[str, object]] = []
    for what, member in compared.items():

        def one(member: genad.Autoencoder = member) -> None:
            sklearn.base.clone(member).fit(X)

        def many(member: genad.Autoencoder = member) -> None:
            genad.Ensemble(member, n=16).fit(X)

        a, b = interleaved(one, many, runs=7)
        rows.append({"what": f"fit 16 {what}, against one", "one s": round(a, 2), "sixteen s": round(b, 2),
                     "ratio": f"{b / a:.2f}", "limit": "at most 2.5"})  # fmt: skip
    return rows


def scoring() -> list[dict[str, object]]:
    """Compare scoring 1,000,000 x 30 rows with the bare forward pass, and time one row."""
    import genad

    X = _data(1_000_000, 30)
    detector = genad.Autoencoder(training=genad.Training(updates=100)).fit(X[:20_000])
    x = torch.from_numpy(X)

    def bare() -> None:
        with torch.inference_mode():
            for part in x.split(2048):
                detector.net_(part)

    a, b = interleaved(lambda: detector.anomaly_score(X), bare, runs=5)
    row = X[:1]
    for _ in range(50):
        detector.anomaly_score(row)
    single = interleaved(lambda: [detector.anomaly_score(row) for _ in range(100)], runs=5)[0] / 100
    return [
        {"what": "score 1,000,000 x 30 rows against a bare forward in inference mode", "genad rows/s": int(1e6 / a),
         "bare rows/s": int(1e6 / b), "ratio": f"{b / a:.0%}", "limit": "at least 70 %"},
        {"what": "score one row, warm", "milliseconds": round(single * 1e3, 3), "limit": "under 2"},
    ]  # fmt: skip


def main(options: list[str]) -> None:  # noqa: ARG001 - all benchmarks are called alike
    quiet()
    rows = against_pyod() + ensembles() + scoring()
    keep("speed", "Speed", "synthetic rows, one thread, seconds of the processor", rows, [])
