"""Find tumours that look unlike benign ones, having seen benign ones only."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

import genad
from genad.data.table import as_table
from genad.metrics import evaluate


def main() -> None:
    """Fit the default detector of tables on normal rows and look at the answer."""
    data = load_breast_cancer()
    malignant = (data.target == 0).astype(int)
    benign = np.flatnonzero(malignant == 0)
    train, kept = train_test_split(benign, test_size=0.4, random_state=0)
    test = np.r_[kept, np.flatnonzero(malignant)]
    table = as_table(data.data, columns=list(data.feature_names))

    detector = genad.default_detector("table", threshold=genad.Conformal(alpha=0.05))
    detector.fit(table.take(train))
    found = detector.detect(table.take(test))

    print(found)
    print(found.threshold.promise)
    figures = evaluate(malignant[test], found.scores, found.is_anomaly)
    print(f"AUROC {figures['auroc']:.3f}, recall {figures['recall']:.3f}")
    print(found.explain(int(found.top(1)[0]), parts=3))


if __name__ == "__main__":
    main()
