"""Realistic anomalous rows: local, global, clustered and dependency anomalies of models of the normal ones."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import clone

from genad.core.parameters import check_choice, check_number, check_whole
from genad.data.kinds import Kind
from genad.errors import InputError
from genad.synthesis.injected import Injected
from genad.synthesis.registry import SynthesisCard, register_synthesizer
from genad.synthesis.row_models import Floats, RowCopula, RowMixture
from genad.synthesis.rows import Codes, RowDraft, RowSynthesizer


@register_synthesizer(
    SynthesisCard(
        title="ADBench: Anomaly Detection Benchmark",
        authors="S. Han, X. Hu, H. Huang, M. Jiang, Y. Zhao",
        venue="NeurIPS Datasets and Benchmarks",
        year=2022,
        kinds=(Kind.TABLE,),
        row="2.1-A18",
        summary="Rows that are too spread, too far, in a place of their own, or whose columns do not go together.",
    )
)
@dataclass(eq=False, repr=False)
class TabularAnomalies(RowSynthesizer):
    """Make anomalous rows of four kinds from generative models fitted to the normal ones.

    A Gaussian mixture is fitted to the normal rows, its size chosen by BIC. *Local* anomalies are drawn from it with
    covariances ``alpha`` times as large, *clustered* ones with means ``alpha`` times as far out; *global* ones are
    uniform over the columns' ranges, a little widened. *Dependency* anomalies draw each column alone from a kernel
    estimate of its density, so that every value is usual and their combination is not. Columns of few values are
    levels: local and clustered anomalies keep a normal row's levels together, the other two draw them one by one.

    Parameters
    ----------
    kind : {"mixed", "local", "global", "cluster", "dependency"}
        "mixed" makes equally many of each kind that the columns allow.
    alpha : float
        How many times larger covariances, or distances of means from the centre, become; above 1.
    margin : float
        Share of a column's range by which global anomalies may leave it, at least 0.
    share : float
        Share of the columns that are changed in each row, at least one; in (0, 1]. The paper changes all of them; with
        fewer, what is changed no longer goes with what is not, so every kind is a dependency anomaly as well.
    components : int
        Largest mixture that is tried, at least 1.
    rule : {"range", "paper"}
        How global anomalies leave the range: by ``margin`` times its length, or as the paper has it, from
        ``min * (1 + margin)`` to ``max * (1 + margin)`` of the standardised values.

    Attributes
    ----------
    kinds_ : tuple of str
        The kinds that the columns allow: local and clustered anomalies need a column of numbers, dependency anomalies
        two columns.
    mixture_ : RowMixture or None
        The mixture.
    copula_ : RowCopula or None
        The copula of normal rows.

    Notes
    -----
    When to use: to compare detectors of rows, or their settings, without labels, by kinds of anomaly; 0.1 to
    0.9 s for a fit to 2,000 rows of 20 columns. What is made is best compared with :meth:`normals`. The paper's stress
    tests are functions of their own: :func:`~genad.duplicate_anomalies`, :func:`~genad.add_irrelevant_columns` and
    :func:`~genad.flip_labels`.

    When it fails: columns that do not depend on each other have no dependency anomalies, and what is made is normal.
    With ``share=1`` and many columns local anomalies are far off every normal row and tell no detectors apart. What
    is made is as realistic as a mixture of Gaussians: values off a grid, or beyond a hard bound, may give it away.

    The paper models dependence with a vine copula; here it is a Gaussian copula (ranks, normal scores, correlation),
    which is quick and does not break, and misses dependence in the tails. Rows are standardised first, for means and
    ranges times a number depend on where zero is. A component at the centre of the rows cannot move outwards by a
    factor; it moves along its longest axis.

    References
    ----------
    Han, Hu, Huang, Jiang and Zhao, "ADBench: Anomaly detection benchmark", NeurIPS 2022, datasets and benchmarks.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(500, 1))
    >>> X = np.c_[x, x + 0.1 * np.random.default_rng(1).normal(size=(500, 1))]
    >>> made = TabularAnomalies("dependency").fit(X).synthesize(X, 200)
    >>> made.samples.shape, round(float(np.corrcoef(X.T)[0, 1]), 1)
    ((200, 2), 1.0)
    >>> bool(abs(np.corrcoef(made.samples.T)[0, 1]) < 0.2)
    True
    """

    kind: str = "mixed"
    alpha: float = 5.0
    margin: float = 0.1
    share: float = 1.0
    components: int = 9
    rule: str = "range"

    KINDS: ClassVar[tuple[str, ...]] = ("local", "global", "cluster", "dependency")
    #: Whether normal rows are drawn from the model of a kind, and not anomalies.
    _usual = False

    def check_parameters(self) -> None:
        """Refuse unknown kinds, factors that do not enlarge, and shares outside (0, 1]."""
        check_choice(self, "kind", ("mixed", *self.KINDS))
        check_choice(self, "rule", ("range", "paper"))
        check_number(self, "alpha", "(1, inf)")
        check_number(self, "margin", "[0, inf)")
        check_number(self, "share", "(0, 1]")
        check_whole(self, "components")

    def learn(self, z: Floats, codes: Codes) -> None:
        """Fit the mixture and the copula, and keep the levels of normal rows."""
        width, levels = z.shape[1], codes.shape[1]
        numbers = width > 0
        allowed = {"local": numbers, "global": True, "cluster": numbers, "dependency": width + levels > 1}
        self.kinds_ = tuple(kind for kind in self.KINDS if allowed[kind])
        if self.kind != "mixed" and self.kind not in self.kinds_:
            raise InputError(
                f"kind: {self.kind!r} anomalies need {'two columns' if self.kind == 'dependency' else 'numbers'} that "
                f"vary; use one of {', '.join(self.kinds_)}."
            )
        known = np.where(np.isnan(z), 0.0, z)  # a missing number counts as the column's mean
        self.mixture_ = RowMixture(known, self.components) if numbers else None
        self.copula_ = RowCopula(known, np.random.default_rng(0)) if numbers else None
        self.codes_ = codes
        if numbers:
            self.range_ = np.stack([np.nanmin(z, 0), np.nanmax(z, 0)])

    def normals(self, X: Any, n: int, *, random_state: int = 0) -> Injected:
        """Draw normal rows from the model that anomalies of this kind are made with.

        A detector may tell what is drawn from a model from what was observed, anomalous or not. Anomalies are compared
        with these rows to leave that out, as the paper does.

        Parameters
        ----------
        X : array, dataframe or Table
            Normal rows, as for :meth:`synthesize`; their levels are kept.
        n : int
            How many, at least 1.
        random_state : int
            Seed of every draw.

        Returns
        -------
        Injected
            Labels are 0.

        Raises
        ------
        InputError
            For kinds "mixed" and "global", which have no model of normal rows, and for rows without numbers that vary.
        """
        model: Self = copy.copy(self) if hasattr(self, "form_") else clone(self).fit(X)
        if self.kind in ("mixed", "global") or model.mixture_ is None:
            raise InputError(f"kind: {self.kind!r} has no model of normal rows here; use local, cluster or dependency.")
        model._usual = True
        made = model.set_params(share=1.0).synthesize(X, n, random_state=random_state)
        return replace(made, labels=np.zeros_like(made.labels))

    def draft(self, z: Floats, codes: Codes, rng: np.random.Generator) -> RowDraft:
        """Propose an anomaly of its kind for each row, in a share of its columns."""
        n = len(z)
        kinds = self.kinds_ if self.kind == "mixed" else (self.kind,)
        chosen = rng.permutation(n) % len(kinds)
        new, new_codes = z.copy(), codes.copy()
        for k, kind in enumerate(kinds):
            rows = np.flatnonzero(chosen == k)
            if len(rows):
                new[rows] = self._numbers(kind, np.where(np.isnan(z[rows]), 0.0, z[rows]), rng)
                if kind in ("global", "dependency") and not self._usual:
                    new_codes[rows] = self._levels(kind, codes[rows], rng)
        touched = self._touched(n, z.shape[1] + codes.shape[1], rng)
        new = np.where(touched[:, : z.shape[1]], new, z)
        new_codes = np.where(touched[:, z.shape[1] :], new_codes, codes)
        return RowDraft(new, new_codes, [{"kind": kinds[k]} for k in chosen])

    def _touched(self, n: int, width: int, rng: np.random.Generator) -> np.ndarray:
        """Choose the columns of each row: a share of them, but one at least."""
        count = max(1, round(self.share * width))
        return np.asarray(rng.random((n, width)).argsort(1).argsort(1) < count)

    def _numbers(self, kind: str, z: Floats, rng: np.random.Generator) -> Floats:
        """Return anomalous numbers for rows without missing values."""
        mixture, copula = self.mixture_, self.copula_
        if mixture is None or copula is None:
            return z
        if kind == "global":
            low, high = self.range_
            extra = self.margin * (high - low)
            low, high = (low - extra, high + extra) if self.rule == "range" else self.range_ * (1 + self.margin)
            return rng.uniform(np.minimum(low, high), np.maximum(low, high), z.shape)
        if kind == "dependency":
            new = z.copy()
            new[:, copula.columns] = copula.joint(len(z), rng) if self._usual else copula.independent(len(z), rng)
            return new
        component, rest = mixture.component(z), mixture.residual(z)
        alpha = 1.0 if self._usual else self.alpha
        if kind == "local":
            return mixture.draw(component, mixture.means, alpha, rng) + np.sqrt(alpha) * rest
        return mixture.draw(component, mixture.shifted(alpha), 1.0, rng) + rest

    def _levels(self, kind: str, codes: Codes, rng: np.random.Generator) -> Codes:
        """Draw levels column by column: each as likely as any, or as often as among normal rows."""
        if kind == "global":
            most = np.array([len(levels) for levels in self.form_.levels])
            return rng.integers(0, most, codes.shape) if codes.shape[1] else codes
        return np.take_along_axis(self.codes_, rng.integers(len(self.codes_), size=codes.shape), 0)
