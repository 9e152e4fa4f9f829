"""The contract of synthesizers of images: normal ones in; anomalous ones, the masks of what changed, and labels out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from genad.core.persistence import read_parameter_with
from genad.data.kinds import Kind
from genad.errors import InputError, InputTypeError
from genad.synthesis.contract import SynthesizerBase, check_request
from genad.synthesis.masks import shows_object
from genad.synthesis.pixels import VISIBLE, read_masks, read_pixels
from genad.synthesis.registry import (
    SynthesisCard,
    create_synthesizer,
    list_synthesizers,
    register_synthesizer,
    synthesizers,
)
from genad.synthesis.synthetic import Synthetic

__all__ = [
    "Draft",
    "SynthesisCard",
    "Synthesizer",
    "Synthetic",
    "create_synthesizer",
    "image_synthesizer",
    "list_synthesizers",
    "register_synthesizer",
    "synthesizers",
]

# Images made at a time: bounds the memory, and fixes the order of the draws whatever n is.
_BLOCK = 64
# Draws an image gets before it is given a plain change of contrast instead.
_ATTEMPTS = 6
# Normal images kept as donors and textures.
_BANK = 256
# A mask below this share of the image is drawn again.
_LEAST_SHARE = 1 / 512


@dataclass
class Draft:
    """What a method proposes; the base class settles which pixels really change.

    Attributes
    ----------
    images : Tensor of shape (B, C, H, W)
        Proposed anomalous images; values outside 0..1 are clipped.
    regions : Tensor of shape (B, 1, H, W), bool
        Where the proposal may change the source.
    drawn : dict of str to Tensor
        The parameters drawn, each with B entries along the first axis, on the device of ``images``.
    """

    images: Tensor
    regions: Tensor
    drawn: dict[str, Tensor] = field(default_factory=dict)


@dataclass(eq=False, repr=False)
class Synthesizer(SynthesizerBase):
    """Base of the synthesizers of images: dataclasses of hyper-parameters with :meth:`draft` filled in.

    A method proposes images and regions; this class makes the promises: outside the mask the source is kept to the
    last bit, every change inside is visible (half a level of 8 bits), no mask is empty, the source is never written
    to, and every draw comes from the generator that was passed in.
    """

    #: Words for the whole numbers drawn under a key, in the samples' meta.
    words: ClassVar[dict[str, tuple[str, ...]]] = {}

    def draft(self, x: Tensor, generator: torch.Generator) -> Draft:
        """Propose an anomalous version of each image of ``x``, (B, C, H, W) in 0..1."""
        raise NotImplementedError

    def learn(self, normal: Tensor, anomalous: Tensor | None, masks: Tensor | None) -> None:
        """Take what the method needs from images in 0..1; the normal ones are those kept in ``bank_``."""

    def fit(self, normal: Any, anomalous: Any = None, masks: Any = None) -> Self:
        """Keep what the method needs from normal images, and learn from real anomalies if it can.

        Parameters
        ----------
        normal : array of shape (n, C, H, W), or an object with ``pixels`` of that shape
            Normal images: uint8, uint16, or floats in 0..1.
        anomalous : array of shape (m, C, H, W), optional
            Real anomalies; only learned methods use them.
        masks : array of shape (m, H, W), optional
            Their masks, positive where anomalous.

        Returns
        -------
        self

        Raises
        ------
        InputError
            For data that cannot be used, or missing data that the method needs.
        """
        self.check_parameters()
        values, limits = read_pixels(normal, "normal")
        self.bank_ = limits.to_unit(values[np.linspace(0, len(values) - 1, min(len(values), _BANK)).astype(int)])
        self.objects_ = bool(shows_object(self.bank_).float().mean() > 0.5)
        if anomalous is None:
            if masks is not None:
                raise InputError("masks: masks were given without anomalous images; pass both or neither.")
            self.learn(self.bank_, None, None)
            return self
        others, other_limits = read_pixels(anomalous, "anomalous")
        if others.shape[1:] != values.shape[1:]:
            raise InputError(
                f"anomalous: images of shape {others.shape[1:]} were given, but the normal ones have shape "
                f"{values.shape[1:]}; bring both to one shape."
            )
        marked = None if masks is None else read_masks(masks, others.shape)
        self.learn(self.bank_, other_limits.to_unit(others), marked)
        return self

    @torch.no_grad()
    def apply(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Make one anomalous version of every image of a batch, inside a training loop.

        Parameters
        ----------
        x : Tensor of shape (B, C, H, W)
            Normal images in 0..1; never written to.
        generator : torch.Generator
            The only source of randomness; numbers are drawn on its device.

        Returns
        -------
        tuple of (Tensor, Tensor)
            Anomalous images of the shape of ``x`` in 0..1, and masks (B, 1, H, W) of 0 and 1.

        Raises
        ------
        InputError
            When ``x`` is not a batch of images.
        """
        if x.ndim != 4 or not x.is_floating_point():
            raise InputError(
                f"x: a tensor of shape {tuple(x.shape)} and type {x.dtype} was given; use floats (B, C, H, W) in 0..1."
            )
        self.check_parameters()
        images, masks, _ = self._make(x.detach(), generator, VISIBLE)
        return images, masks.to(x.dtype)

    @torch.no_grad()
    def synthesize(self, X: Any, n: int, *, random_state: int = 0) -> Synthetic:
        """Make anomalous images from normal ones.

        Parameters
        ----------
        X : array of shape (m, C, H, W), or an object with ``pixels`` of that shape
            Normal images: uint8, uint16, or floats in 0..1; never written to.
        n : int
            How many to make; each image is used equally often, up to one.
        random_state : int
            Seed of every draw.

        Returns
        -------
        Synthetic
            Samples in the type and range of ``X``, with masks, labels, sources and drawn parameters.

        Raises
        ------
        InputError
            For images that cannot be used, or ``n`` below 1.
        """
        n, random_state = check_request(n, random_state, "image")
        self.check_parameters()
        values, limits = read_pixels(X, "X")
        generator = torch.Generator().manual_seed(random_state)
        rounds = [torch.randperm(len(values), generator=generator) for _ in range(-(-n // len(values)))]
        sources = torch.cat(rounds)[:n].numpy()
        samples, masks, meta = [], [], []
        for first in range(0, len(sources), _BLOCK):
            chosen = sources[first : first + _BLOCK]
            made, mask, drawn = self._make(limits.to_unit(values[chosen]), generator, limits.tolerance)
            marked = mask.cpu().numpy()
            samples.append(np.where(marked, limits.from_unit(made), values[chosen]))
            masks.append(marked[:, 0])
            meta += [{"method": self.name, **row} for row in _rows(drawn, len(chosen), self.words)]
        return Synthetic(
            np.concatenate(samples),
            np.concatenate(masks),
            np.ones(len(sources), np.int64),
            sources.astype(np.int64),
            meta,
            tuple(limits.low.tolist()),
            tuple(limits.high.tolist()),
        )

    @property
    def objects(self) -> bool | None:
        """Whether the fitted images show an object before a background; None before a fit, for each image to decide."""
        return getattr(self, "objects_", None)

    def donors(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return one other normal image for each of ``x``: from the fitted ones, else from the same batch.

        Raises
        ------
        InputError
            When the fitted images have other channels than ``x``.
        """
        bank: Tensor | None = getattr(self, "bank_", None)
        if bank is None:
            shift = torch.randint(1, max(2, len(x)), (), generator=generator, device=generator.device)
            return x.roll(int(shift), 0)
        if bank.shape[1] != x.shape[1]:
            raise InputError(
                f"x: images of {x.shape[1]} channels were given to a {type(self).__name__} fitted on images of "
                f"{bank.shape[1]}; fit it on images like these."
            )
        chosen = torch.randint(len(bank), (len(x),), generator=generator, device=generator.device).to(bank.device)
        others = bank[chosen].to(x)
        return others if others.shape == x.shape else functional.interpolate(others, x.shape[2:], mode="bilinear")

    def _make(
        self, x: Tensor, generator: torch.Generator, tolerance: float
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Draft, settle, draw again where nothing visible changed, and fall back to contrast in the end."""
        draft = self.draft(x, generator)
        images, masks = settle(x, draft, tolerance)
        drawn = draft.drawn
        least = max(1, round(_LEAST_SHARE * x[0, 0].numel()))
        for attempt in range(_ATTEMPTS):
            poor = (masks.flatten(1).sum(1) < least).nonzero().flatten()
            if not len(poor):
                break
            if attempt < _ATTEMPTS - 1:
                again = self.draft(x[poor], generator)
                new_images, new_masks = settle(x[poor], again, tolerance)
                better = new_masks.flatten(1).sum(1) > masks[poor].flatten(1).sum(1)
                poor, new_images, new_masks = poor[better], new_images[better], new_masks[better]
                for key, value in again.drawn.items():
                    drawn[key] = drawn[key].index_copy(0, poor, value[better])
            else:
                poor = (~masks.flatten(1).any(1)).nonzero().flatten()
                new_images, new_masks = _contrast(x[poor], generator)
                plain = torch.zeros(len(x), dtype=torch.bool, device=x.device)
                plain[poor] = True
                drawn["plain_contrast"] = plain
            images, masks = images.index_copy(0, poor, new_images), masks.index_copy(0, poor, new_masks)
        return images, masks, drawn


def image_synthesizer(argument: str, given: Any) -> Synthesizer:
    """Return a synthesizer of images, made by its name where a name was given.

    Parameters
    ----------
    argument : str
        Name of the argument, for messages.
    given : Synthesizer or str
        What was given.

    Raises
    ------
    InputError
        For an unknown name, or a synthesizer of rows or series; the message lists those of images.
    InputTypeError
        For anything else.

    Examples
    --------
    >>> image_synthesizer("method", "cut_paste")
    CutPaste()
    >>> image_synthesizer("method", "cut_add_paste")
    Traceback (most recent call last):
    genad.errors.InputError: method: CutAddPaste makes anomalies of series, not of images; use ...
    """
    made = create_synthesizer(given) if isinstance(given, str) else given
    if isinstance(made, Synthesizer):
        return made
    if not isinstance(made, SynthesizerBase):
        raise InputTypeError(
            f"{argument}: a {type(made).__name__} was given; use a name of "
            "genad.synthesis.list_synthesizers(kind='image'), or a Synthesizer."
        )
    card = getattr(made, "card", None)  # a class of the user's own may have none
    kinds = " and ".join({Kind.TABLE: "rows"}.get(kind, kind.value) for kind in card.kinds) if card else "other data"
    raise InputError(
        f"{argument}: {type(made).__name__} makes anomalies of {kinds}, not of images; use one of "
        f"{', '.join(list_synthesizers(kind=Kind.IMAGE))}."
    )


def settle(x: Tensor, draft: Draft, tolerance: float) -> tuple[Tensor, Tensor]:
    """Keep the visible changes of a draft and put back the source everywhere else.

    Lone changed pixels are dropped; a pixel that kept its value inside a changed neighbourhood stays in the mask, so
    that masks are regions rather than speckles.

    Parameters
    ----------
    x : Tensor of shape (B, C, H, W)
        The source.
    draft : Draft
        The proposal.
    tolerance : float
        Largest change, in 0..1, that counts as none.

    Returns
    -------
    tuple of (Tensor, Tensor)
        Images, and bool masks (B, 1, H, W); outside a mask the image equals the source.
    """
    proposed = draft.images.clamp(0.0, 1.0)
    changed = draft.regions & ((proposed - x).abs().amax(1, keepdim=True) > tolerance)
    around = functional.conv2d(changed.to(x.dtype), x.new_ones(1, 1, 3, 3), padding=1)
    mask = draft.regions & ((changed & (around > 1.5)) | (around > 6.5))
    return torch.where(mask, proposed, x), mask


def _contrast(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Shift a random rectangle away from its own brightness: visible on any image, even a constant one."""
    batch, _, height, width = x.shape
    where = torch.rand(batch, 4, generator=generator, device=generator.device).to(x.device)
    inside = []
    for size, length, place in ((height, where[:, 0], where[:, 1]), (width, where[:, 2], where[:, 3])):
        extent = (size * (0.1 + 0.2 * length)).clamp_min(1.0).floor()
        first = (place * (size - extent + 1)).floor().clamp_max(size - 1)
        axis = torch.arange(size, device=x.device)
        inside.append((axis >= first[:, None]) & (axis < (first + extent)[:, None]))
    mask = (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
    shifted = x + torch.where(x < 0.5, 0.25, -0.25)
    return torch.where(mask, shifted, x), mask


def _rows(drawn: dict[str, Tensor], n: int, words: dict[str, tuple[str, ...]]) -> list[dict[str, Any]]:
    """Turn columns of drawn parameters into one dict a sample, rounded to what matters."""
    rows: list[dict[str, Any]] = [{} for _ in range(n)]
    for key, column in drawn.items():
        for row, value in zip(rows, column.tolist(), strict=True):
            row[key] = words[key][value] if key in words else _rounded(value)
    return rows


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def _from_dict(state: dict[str, Any]) -> Synthesizer:
    params = {key: tuple(value) if isinstance(value, list) else value for key, value in state["params"].items()}
    return create_synthesizer(state["name"], **params)


read_parameter_with("synthesizer", _from_dict)
