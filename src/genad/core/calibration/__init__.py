"""Calibration: thresholds, p-values and flags whose error rate means something."""

from __future__ import annotations

from genad.core.calibration.alert_outcome import PolicyOutcome
from genad.core.calibration.alert_policy import AlertPolicy
from genad.core.calibration.conformal import (
    attainable_alpha,
    conformal_p_values,
    conformal_quantile,
    conformal_rank,
    grouped_p_values,
    samples_needed,
)
from genad.core.calibration.dynamic import NonparametricDynamicThreshold
from genad.core.calibration.evt import GPD, fit_gpd, pot_quantile
from genad.core.calibration.fdr import (
    adjusted_p_values,
    benjamini_hochberg,
    benjamini_yekutieli,
)
from genad.core.calibration.fitted import FittedThreshold
from genad.core.calibration.martingale import ConformalMartingale
from genad.core.calibration.merging import merge_p_values
from genad.core.calibration.online_fdr import ADDIS, LORD, SAFFRON, OnlineFDR
from genad.core.calibration.rule import Threshold, threshold_from_dict
from genad.core.calibration.segments import FittedSegments, Segmented
from genad.core.calibration.spot import DSPOT, SPOT
from genad.core.calibration.streams import RunningConformal, StreamRule, stream_from_dict
from genad.core.calibration.thresholds import (
    Adaptive,
    BestF,
    Conformal,
    FixedValue,
    PeaksOverThreshold,
    Quantile,
)

__all__ = [
    "ADDIS",
    "DSPOT",
    "GPD",
    "LORD",
    "SAFFRON",
    "SPOT",
    "Adaptive",
    "AlertPolicy",
    "BestF",
    "Conformal",
    "ConformalMartingale",
    "FittedSegments",
    "FittedThreshold",
    "FixedValue",
    "NonparametricDynamicThreshold",
    "OnlineFDR",
    "PeaksOverThreshold",
    "PolicyOutcome",
    "Quantile",
    "RunningConformal",
    "Segmented",
    "StreamRule",
    "Threshold",
    "adjusted_p_values",
    "attainable_alpha",
    "benjamini_hochberg",
    "benjamini_yekutieli",
    "conformal_p_values",
    "conformal_quantile",
    "conformal_rank",
    "fit_gpd",
    "grouped_p_values",
    "merge_p_values",
    "pot_quantile",
    "samples_needed",
    "stream_from_dict",
    "threshold_from_dict",
]
