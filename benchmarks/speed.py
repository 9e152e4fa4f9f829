"""How fast are fit and score, against PyOD and against the bare network? One thread, one run, ratios."""

from __future__ import annotations

import numpy as np
import sklearn.base
import torch

from benchmarks.common import keep, quiet, timed


def _data(n: int, d: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(n, 6)) @ rng.normal(size=(6, d)) + 0.3 * rng.normal(size=(n, d))).astype(np.float32)


def best(work: object, runs: int = 3) -> float:
    return min(timed(work)[1] for _ in range(runs))  # type: ignore[arg-type]


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

    a, b = best(ours, 2), best(theirs, 2)
    return [{"what": "AE 20-64-32-64-20, 10 epochs, batch 32, 20,000 rows: fit and score", "genad s": round(a, 2),
             "pyod s": round(b, 2), "ratio": f"{b / a:.1f}x", "limit": "at least 2x"}]  # fmt: skip


def ensembles() -> list[dict[str, object]]:
    """Compare 16 stacked members with one."""
    import genad

    X = _data(20_000, 20)
    member = genad.Autoencoder(
        latent=32, backbone=genad.Backbone("mlp", hidden=(64,)), training=genad.Training(updates=600, batch_size=64)
    )
    one = best(lambda: sklearn.base.clone(member).fit(X))
    many = best(lambda: genad.Ensemble(member, n=16).fit(X))
    plain = genad.Autoencoder()
    default_one = best(lambda: sklearn.base.clone(plain).fit(X))
    default_many = best(lambda: genad.Ensemble(plain, n=16).fit(X))
    default = {"what": "ensemble of 16 default autoencoders against one: fit", "one s": round(default_one, 2),
               "sixteen s": round(default_many, 2), "ratio": f"{default_many / default_one:.2f}",
               "limit": "at most 2.5"}  # fmt: skip
    return [default, {"what": "ensemble of 16 AEs 20-64-32-64-20 against one, 600 updates of 64: fit",
             "one s": round(one, 2),
             "sixteen s": round(many, 2), "ratio": f"{many / one:.2f}", "limit": "at most 2.5"}]  # fmt: skip


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

    a, b = best(lambda: detector.anomaly_score(X)), best(bare)
    row = X[:1]
    for _ in range(50):
        detector.anomaly_score(row)
    single = best(lambda: [detector.anomaly_score(row) for _ in range(100)]) / 100
    return [
        {"what": "score 1,000,000 x 30 rows against a bare forward in inference mode", "genad rows/s": int(1e6 / a),
         "bare rows/s": int(1e6 / b), "ratio": f"{b / a:.0%}", "limit": "at least 70 %"},
        {"what": "score one row, warm", "milliseconds": round(single * 1e3, 3), "limit": "under 2"},
    ]  # fmt: skip


def main(options: list[str]) -> None:  # noqa: ARG001 - all benchmarks are called alike
    quiet()
    rows = against_pyod() + ensembles() + scoring()
    keep("speed", "Speed", "synthetic rows, one thread", rows, [])
