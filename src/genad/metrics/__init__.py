"""Metrics of anomaly detection: point, range, volume under the surface, affiliation, pixel and region.

Labels are 1 = anomaly, 0 = normal; scores are higher = more anomalous. A name that begins with
``oracle_`` marks a figure whose threshold saw the labels. Names are loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from genad.metrics.adjusted import OraclePointAdjusted as OraclePointAdjusted
    from genad.metrics.adjusted import PointAdjusted as PointAdjusted
    from genad.metrics.adjusted import oracle_point_adjusted_f1 as oracle_point_adjusted_f1
    from genad.metrics.adjusted import point_adjusted_f1 as point_adjusted_f1
    from genad.metrics.affiliation_zones import Affiliation as Affiliation
    from genad.metrics.affiliation_zones import affiliation as affiliation
    from genad.metrics.classes import ClassFigures as ClassFigures
    from genad.metrics.classes import by_class as by_class
    from genad.metrics.pixel import dice_score as dice_score
    from genad.metrics.pixel import iou_score as iou_score
    from genad.metrics.pixel import pixel_ap as pixel_ap
    from genad.metrics.pixel import pixel_auroc as pixel_auroc
    from genad.metrics.point import OracleF1 as OracleF1
    from genad.metrics.point import auroc as auroc
    from genad.metrics.point import average_precision as average_precision
    from genad.metrics.point import f_beta as f_beta
    from genad.metrics.point import oracle_best_f1 as oracle_best_f1
    from genad.metrics.point import precision as precision
    from genad.metrics.point import precision_at_k as precision_at_k
    from genad.metrics.point import recall as recall
    from genad.metrics.point import recall_at_false_alarm_rate as recall_at_false_alarm_rate
    from genad.metrics.ranges import RangeBased as RangeBased
    from genad.metrics.ranges import events_from_flags as events_from_flags
    from genad.metrics.ranges import range_based as range_based
    from genad.metrics.regions import aupro as aupro
    from genad.metrics.streamed import PixelFigures as PixelFigures
    from genad.metrics.streamed import PixelMetrics as PixelMetrics
    from genad.metrics.summary import evaluate as evaluate
    from genad.metrics.vus import VolumeUnderSurface as VolumeUnderSurface
    from genad.metrics.vus import volume_under_surface as volume_under_surface
    from genad.metrics.vus import vus_pr as vus_pr
    from genad.metrics.vus import vus_roc as vus_roc

# No function shares its module's name: importing the module would hide the function.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "adjusted": [
            "OraclePointAdjusted",
            "PointAdjusted",
            "oracle_point_adjusted_f1",
            "point_adjusted_f1",
        ],
        "affiliation_zones": ["Affiliation", "affiliation"],
        "classes": ["ClassFigures", "by_class"],
        "pixel": ["dice_score", "iou_score", "pixel_ap", "pixel_auroc"],
        "point": [
            "OracleF1",
            "auroc",
            "average_precision",
            "f_beta",
            "oracle_best_f1",
            "precision",
            "precision_at_k",
            "recall",
            "recall_at_false_alarm_rate",
        ],
        "ranges": ["RangeBased", "events_from_flags", "range_based"],
        "regions": ["aupro"],
        "streamed": ["PixelFigures", "PixelMetrics"],
        "summary": ["evaluate"],
        "vus": ["VolumeUnderSurface", "volume_under_surface", "vus_pr", "vus_roc"],
    },
)
