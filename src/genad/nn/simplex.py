"""Simplex noise of several octaves: smooth, band-limited fields that hide whole regions of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genad.errors import InputError

_F32 = NDArray[np.float32]

# Directions from the centre of a cube to the middles of its edges.
_EDGES = np.array(
    [[a, b, 0] for a in (1, -1) for b in (1, -1)]
    + [[a, 0, b] for a in (1, -1) for b in (1, -1)]
    + [[0, a, b] for a in (1, -1) for b in (1, -1)],
    np.float32,
)
_PERIOD = 256
# Points worked on at a time: few enough that the intermediate arrays stay in the processor's cache.
_CHUNK = 1 << 14
# Octaves of a wavelength below this many pixels cannot be told from white noise.
_FINEST = 2.0


class SimplexLattice:
    """Simplex noise in three dimensions, with gradients drawn at random.

    Space is cut into tetrahedra; a value is the sum over the four corners around a point of a random gradient times
    the offset from the corner, faded out smoothly with the distance.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the gradients.

    References
    ----------
    Perlin (2001), Noise hardware, SIGGRAPH course notes.

    Examples
    --------
    >>> lattice = SimplexLattice(np.random.default_rng(0))
    >>> x = np.linspace(0, 3, 5, dtype=np.float32)
    >>> lattice(x, x + 1, 0 * x).shape
    (5,)
    """

    def __init__(self, rng: np.random.Generator) -> None:
        order = rng.permutation(_PERIOD)
        # repeated, so that the sum of an entry and a coordinate needs no second remainder
        self._order = np.concatenate([order, order, order]).astype(np.int32)
        self._gradients = _EDGES[rng.integers(len(_EDGES), size=_PERIOD)].T.copy()

    def __call__(self, x: _F32, y: _F32, z: _F32) -> _F32:
        """Return the noise at points whose coordinates are flat arrays of one length; values lie within -1 and 1."""
        out = np.empty(x.shape, np.float32)
        for first in range(0, x.size, _CHUNK):
            part = slice(first, first + _CHUNK)
            out[part] = self._evaluate(x[part], y[part], z[part])
        return out

    def _evaluate(self, x: _F32, y: _F32, z: _F32) -> _F32:
        skew = (x + y + z) * np.float32(1 / 3)
        cells = [np.floor(c + skew) for c in (x, y, z)]
        unskew = (cells[0] + cells[1] + cells[2]) * np.float32(1 / 6)
        x0, y0, z0 = (c - cell + unskew for c, cell in zip((x, y, z), cells, strict=True))
        i, j, k = (cell.astype(np.int32) & (_PERIOD - 1) for cell in cells)
        # The tetrahedron around the point follows from the order of its coordinates: one unit step along the
        # largest, then one along the middle one, then one along the smallest.
        xy, yz, xz = x0 >= y0, y0 >= z0, x0 >= z0
        largest = (xy & xz, ~xy & yz, ~xz & ~yz)
        not_smallest = (xy | xz, ~xy | yz, ~(xz & yz))
        corners: list[tuple[Any, Any, Any]] = [(0, 0, 0), largest, not_smallest, (1, 1, 1)]
        total = np.zeros(x.shape, np.float32)
        for number, steps in enumerate(corners):
            back = np.float32(number / 6)
            dx, dy, dz = (c - step + back for c, step in zip((x0, y0, z0), steps, strict=True))
            fade = np.maximum(np.float32(0.5) - dx * dx - dy * dy - dz * dz, np.float32(0))
            fade *= fade
            corner = self._order[k + steps[2]]
            corner = self._order[j + steps[1] + corner]
            corner = self._order[i + steps[0] + corner]
            gx, gy, gz = (g[corner] for g in self._gradients)
            total += fade * fade * (gx * dx + gy * dy + gz * dz)
        return total * np.float32(72.0)


def simplex_wavelengths(
    size: Sequence[int], octaves: int | None = None, wavelength: float | None = None
) -> list[float]:
    """Choose the wavelengths of the octaves for an image size: a quarter of it, halved down to 2 pixels.

    Parameters
    ----------
    size : sequence of int
        Height and width, in pixels.
    octaves : int or None
        Number of octaves, at least 1; None takes all that are at least 2 pixels long (and always one).
    wavelength : float or None
        Longest wavelength, in pixels, above 0; None for a quarter of the longer side, but at least 2.

    Returns
    -------
    list of float
        The longest first.

    Examples
    --------
    >>> simplex_wavelengths((64, 64)), simplex_wavelengths((32, 32)), simplex_wavelengths((1, 1))
    ([16.0, 8.0, 4.0, 2.0], [8.0, 4.0, 2.0], [2.0])
    """
    longest = max(max(size) / 4, _FINEST) if wavelength is None else float(wavelength)
    if octaves is None:
        octaves = 1
        while longest / 2**octaves >= _FINEST:
            octaves += 1
    return [longest / 2**k for k in range(octaves)]


def simplex_fields(
    n: int, size: Sequence[int], wavelengths: Sequence[float], persistence: float, rng: np.random.Generator
) -> _F32:
    """Make fields of multi-octave simplex noise, each a slice of its own through noise in three dimensions.

    Octave k has amplitude ``persistence ** k``. Slices of noise in three dimensions show less of the lattice than
    noise made in two.

    Parameters
    ----------
    n : int
        How many fields.
    size : sequence of int
        Height and width, in pixels.
    wavelengths : sequence of float
        One an octave, in pixels.
    persistence : float
        Ratio of the amplitudes of one octave and the one before, above 0.
    rng : numpy.random.Generator
        Draws gradients and slices.

    Returns
    -------
    array of shape (n, height, width), float32
        Of mean about 0 and variance 1 over all fields. A single field need not have mean 0.

    Examples
    --------
    >>> fields = simplex_fields(20, (16, 16), [4.0, 2.0], 0.8, np.random.default_rng(0))
    >>> fields.shape, round(float(fields.std()), 3)
    ((20, 16, 16), 1.0)
    """
    height, width = size
    lattice = SimplexLattice(rng)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32).reshape(2, 1, -1)
    total = np.zeros((n, height * width), np.float32)
    for octave, wavelength in enumerate(wavelengths):
        start = rng.uniform(0, _PERIOD, (3, n, 1)).astype(np.float32)
        x, y = rows / np.float32(wavelength) + start[0], columns / np.float32(wavelength) + start[1]
        z = np.broadcast_to(start[2], x.shape)
        noise = lattice(x.ravel(), y.ravel(), z.ravel()).reshape(x.shape)
        total += np.float32(persistence**octave) * noise
    total /= max(float(total.std()), 1e-12)
    return total.reshape(n, height, width)


class SimplexNoise(nn.Module):
    """A source of simplex noise for batches of images: crops and reflections of a pool of fields.

    A draw picks, for each sample and channel on its own, a field, a place to crop it, reflections and a sign, none of
    which changes the law of the noise.

    Parameters
    ----------
    shape : tuple of int
        Channels, height and width of a sample.
    octaves, wavelength
        As in :func:`simplex_wavelengths`.
    persistence : float, default=0.8
        Ratio of the amplitudes of neighbouring octaves, above 0.
    fields : int, default=256
        Fields in the pool, at least 1.
    seed : int, default=0
        Decides the pool.

    Attributes
    ----------
    pool : torch.Tensor
        The fields, a quarter larger than an image, of unit variance. It is not saved with a model: only training
        draws from it.

    Raises
    ------
    InputError
        If an argument is out of range.

    Examples
    --------
    >>> source = SimplexNoise((1, 16, 16), fields=50)
    >>> source.draw(4, torch.Generator().manual_seed(0)).shape
    torch.Size([4, 1, 16, 16])
    """

    pool: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        octaves: int | None = None,
        wavelength: float | None = None,
        persistence: float = 0.8,
        fields: int = 256,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, count in (("octaves", octaves), ("fields", fields)):
            if count is not None and count < 1:
                raise InputError(f"{name}: {count!r} was given; use a whole number of at least 1.")
        for name, value in (("wavelength", wavelength), ("persistence", persistence)):
            if value is not None and not value > 0:
                raise InputError(f"{name}: {value!r} was given; use a number above 0.")
        self.channels, *size = shape
        self.size = tuple(size)
        rng = np.random.default_rng(seed)
        larger = [side + -(-side // 4) for side in size]
        waves = simplex_wavelengths(size, octaves, wavelength)
        pool = torch.from_numpy(simplex_fields(fields, larger, waves, persistence, rng))
        self.register_buffer("pool", pool, persistent=False)

    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return noise ``(n, channels, height, width)``, each sample and channel a draw of its own."""
        height, width = self.size
        windows = self.pool.unfold(1, height, 1).unfold(2, width, 1)
        fields, rows, columns = windows.shape[:3]
        count = n * self.channels

        def pick(high: int) -> Tensor:
            return torch.randint(high, (count,), generator=generator, device=self.pool.device)

        noise = windows[pick(fields), pick(rows), pick(columns)]
        for axes in ((1,), (2,)):
            noise = torch.where(pick(2).bool().view(-1, 1, 1), noise.flip(axes), noise)
        noise = noise * (2 * pick(2) - 1).view(-1, 1, 1)
        return noise.view(n, self.channels, height, width)
