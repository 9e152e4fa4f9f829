"""Pixel answers of images: a threshold calibrated on held-out normal pixels, and maps, masks and regions by it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genad.core.detections import Detections, Explanation, Part
from genad.data.regions import Region, regions
from genad.data.resize import resize_map
from genad.errors import InputError

if TYPE_CHECKING:
    from genad.data.image import Images

Floats = NDArray[np.float64]

#: Share of a normal image that its mask may cover, on average.
PIXEL_ALPHA = 0.01
# Rates of the curve that stands for all held-out pixels.
_RATES = 256


@dataclass(frozen=True)
class PixelThreshold:
    """A threshold on the values of anomaly maps, and what it promises.

    Attributes
    ----------
    value : float
        Pixels above it belong to the mask; raw units of the method's map.
    alpha : float
        The share of a normal image's pixels that was asked for.
    pixel_rate : float
        Share of the held-out normal pixels above ``value``.
    image_rate : float
        Share of the held-out normal images with any pixel above ``value``.
    images : int
        Held-out images it was set on.
    promise : str
        The same in words.
    """

    value: float
    alpha: float
    pixel_rate: float
    image_rate: float
    images: int
    promise: str


@dataclass(frozen=True)
class PixelCalibration:
    """How often the pixels of held-out normal images exceed a value.

    Attributes
    ----------
    values : float64 array of shape (k,)
        Candidate thresholds, falling.
    pixel_rates, image_rates : float64 arrays of shape (k,)
        Share of normal pixels, and of normal images with any pixel, above each of them.
    images : int
        Held-out images.
    """

    values: Floats
    pixel_rates: Floats
    image_rates: Floats
    images: int

    @classmethod
    def fit(cls, maps: NDArray[Any]) -> PixelCalibration:
        """Learn the curve from the maps of held-out normal images, shape (n, rows, columns)."""
        pooled = np.sort(np.asarray(maps, np.float64).ravel())
        peaks = np.sort(np.asarray(maps, np.float64).reshape(len(maps), -1).max(axis=1))
        n = len(pooled)
        above = np.unique(np.r_[0, np.geomspace(1, max(1, n // 2), _RATES).astype(np.int64)])
        values = pooled[n - 1 - above]
        return cls(
            values,
            1.0 - np.searchsorted(pooled, values, side="right") / n,
            1.0 - np.searchsorted(peaks, values, side="right") / len(peaks),
            len(maps),
        )

    def threshold(self, alpha: float = PIXEL_ALPHA) -> PixelThreshold:
        """Return the lowest threshold that keeps the mask of a normal image small.

        The expected share of falsely masked pixels of a fresh normal image is at most ``alpha`` (conformal risk
        control: with n held-out images, their mean share R must meet ``n / (n + 1) R + 1 / (n + 1) <= alpha``). Fewer
        than ``1 / alpha`` images cannot promise that; then R itself is held at ``alpha``.

        Parameters
        ----------
        alpha : float
            In (0, 0.5].

        Returns
        -------
        PixelThreshold

        References
        ----------
        Angelopoulos et al. (2024), Conformal risk control, ICLR.

        Examples
        --------
        >>> import numpy as np
        >>> maps = np.random.default_rng(0).uniform(size=(200, 8, 8))
        >>> chosen = PixelCalibration.fit(maps).threshold(0.05)
        >>> round(chosen.value, 2), round(chosen.pixel_rate, 3)
        (0.96, 0.045)
        """
        if not isinstance(alpha, int | float | np.number) or not 0 < alpha <= 0.5:
            raise InputError(f"pixel_alpha: {alpha!r} was given; use a share of pixels above 0 and at most 0.5.")
        n = self.images
        target = ((n + 1) * alpha - 1) / n
        valid = target > 0
        place = int(np.flatnonzero(self.pixel_rates <= (target if valid else alpha))[-1:].sum())
        rate, image_rate = float(self.pixel_rates[place]), float(self.image_rates[place])
        said = f"the mask of a normal image covers {alpha:.2g} of its pixels or less on average" if valid else ""
        weak = (
            f"{n} held-out images are too few to promise a share of {alpha:.2g}; of their own pixels {rate:.2g} are "
            "masked"
        )
        promise = f"{said or weak}; {image_rate:.0%} of the held-out normal images have any masked pixel."
        return PixelThreshold(float(self.values[place]), alpha, rate, image_rate, n, promise[0].upper() + promise[1:])

    def state(self) -> dict[str, Any]:
        """Return the curve as plain values."""
        return {
            "values": self.values.tolist(),
            "pixel_rates": self.pixel_rates.tolist(),
            "image_rates": self.image_rates.tolist(),
            "images": self.images,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> PixelCalibration:
        """Make the curve again."""
        values, pixels, images = (np.asarray(state[k], np.float64) for k in ("values", "pixel_rates", "image_rates"))
        return cls(values, pixels, images, int(state["images"]))


@dataclass(repr=False)
class ImageDetections(Detections):
    """What a detector says of images: beside the scores, where each image is anomalous.

    Attributes
    ----------
    images : Images or None
        The images as read, which know their own sizes; None for plain arrays.
    pixels : PixelThreshold or None
        The threshold of the masks.
    """

    images: Images | None = None
    pixels: PixelThreshold | None = field(default=None)

    def _own_size(self, i: int) -> tuple[int, int]:
        if self.images is not None:
            rows, columns = self.images.sizes[i]
            return int(rows), int(columns)
        assert self.maps is not None  # noqa: S101 - checked by the callers
        return tuple(self.maps.shape[-2:])

    def pixel_map(self, i: int) -> NDArray[np.float32]:
        """Return how anomalous each pixel of image ``i`` is.

        Parameters
        ----------
        i : int
            Position of the image.

        Returns
        -------
        float32 array of shape (rows, columns)
            In the image's own size; higher is more anomalous, in the raw units of the method's map.

        Raises
        ------
        InputError
            When there is no such image, or maps were left out.
        """
        if self.maps is None:
            raise InputError("pixel_map: maps were left out; call detect() with maps=True.")
        i = self.position(i)
        values = np.asarray(self.maps[i], np.float32)
        flat = values.sum(axis=0) if values.ndim == 3 else values
        return resize_map(flat, self._own_size(i))

    def mask(self, i: int) -> NDArray[np.bool_]:
        """Return which pixels of image ``i`` exceed the pixel threshold, in the image's own size."""
        return self.pixel_map(i) > self._threshold()

    def regions(self, i: int, min_area: int = 1) -> list[Region]:
        """Return the connected anomalous regions of image ``i``, the highest score first.

        Parameters
        ----------
        i : int
            Position of the image.
        min_area : int
            Leave out smaller regions, in pixels.

        Returns
        -------
        list of Region
        """
        return regions(self.pixel_map(i), self._threshold(), min_area=min_area)

    def masked_share(self) -> Floats:
        """Return the share of each image's pixels above the pixel threshold, from 0 to 1."""
        if self.maps is None:
            raise InputError("masked_share: maps were left out; call detect() with maps=True.")
        limit = self._threshold()
        share = np.empty(len(self))
        for i, values in enumerate(self.maps):
            flat = values.sum(axis=0) if values.ndim == 3 else values
            share[i] = (flat > limit).mean()
        return share

    def restored_image(self, i: int) -> NDArray[Any]:
        """Return what image ``i`` should have looked like: (rows, columns, channels) in its own size and depth.

        Raises
        ------
        InputError
            When there is no such image, or restored images were left out.
        """
        if self.restored is None:
            raise InputError("restored_image: restored images were left out; call detect() with restore=True.")
        i = self.position(i)
        return np.asarray(self.restored[i]) if self.images is not None else np.moveaxis(self.restored[i], 0, -1)

    def _threshold(self) -> float:
        if self.pixels is None:
            raise InputError(
                "mask: the detector has no pixel threshold; fit or calibrate() it on images with this version."
            )
        return self.pixels.value

    def explain(self, i: int, parts: int | None = None) -> Explanation:
        """Explain image ``i`` by its anomalous regions.

        Parameters
        ----------
        i : int
            Position of the image.
        parts : int, optional
            Keep the most telling so many; at most 50 regions when absent.

        Returns
        -------
        Explanation
            A part a region: the mean pixel value found and expected there, and its share of the map; the last part
            is what lies outside of all regions.
        """
        if self.maps is None or self.expected is None:
            raise InputError("explain: maps and restored values were left out; call detect() with both.")
        i = self.position(i)
        where = self.maps[i].sum(axis=0) if self.maps[i].ndim == 3 else self.maps[i]
        weight = np.asarray(where, np.float64) - min(0.0, float(np.min(where)))
        total = float(weight.sum())
        rows, columns = self._own_size(i)
        scale = rows / where.shape[0], columns / where.shape[1]
        limit = np.inf if self.pixels is None else self.pixels.value
        found = []
        covered = 0.0
        for region in regions(where, limit)[: parts or 50]:
            top, left, bottom, right = region.box
            inside = np.zeros(where.shape, np.bool_)
            inside[top:bottom, left:right] = where[top:bottom, left:right] > limit
            share = float(weight[inside].sum()) / total if total > 0 else 0.0
            covered += share
            first, last = int(top * scale[0]), int(np.ceil(bottom * scale[0])) - 1
            near, far = int(left * scale[1]), int(np.ceil(right * scale[1])) - 1
            found.append(
                Part(
                    f"rows {first}-{last}, columns {near}-{far}",
                    _mean(self.observed[i][:, inside]),
                    _mean(self.expected[i][:, inside]),
                    None,
                    None,
                    share,
                )
            )
        name = "elsewhere" if found else "the whole image, no pixel above the pixel threshold"
        found.sort(key=lambda part: -part.share)
        outside = where <= limit
        means = _mean(self.observed[i][:, outside]), _mean(self.expected[i][:, outside])
        found.append(Part(name, *means, None, None, max(0.0, 1.0 - covered)))
        return Explanation(i, float(self.scores[i]), float(self.p_values[i]), tuple(found))

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the answer as named columns: file, class, score, p-value, flag, and the share that is masked."""
        table: dict[str, NDArray[Any]] = {}
        if self.images is not None:
            table["file"] = np.asarray(self.images.names)
            if self.images.classes is not None:
                table["class"] = np.asarray(self.images.classes)
        table |= {"score": self.scores, "p_value": self.p_values, "is_anomaly": self.is_anomaly}
        if self.maps is not None and self.pixels is not None:
            table["masked_share"] = self.masked_share()
        return table


def _mean(values: NDArray[Any]) -> float | None:
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    return float(known.mean()) if known.size else None
