"""Choose a network by the shape of one sample, not by the method that uses it.

=================  ===============================  ==================
Shape of a sample  What it is                       Default backbone
=================  ===============================  ==================
``(d,)``           a row of a table                 ``mlp``
``(T, C)``         a window of a series             ``tcn`` (or ``gru``)
``(C, H, W)``      an image                         ``conv``
``(T, C, H, W)``   a clip                           ``conv3d``
=================  ===============================  ==================

``mlp`` takes any shape by name and flattens it. No network normalises over the batch, so a sample's
output never depends on its neighbours in the batch, and stacked ensembles can run under
``torch.vmap`` (all but ``gru``, for which torch has no rule).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING

from genad.errors import InputError, InputTypeError
from genad.nn import conv, mlp, temporal, video
from genad.nn.backbone_spec import Backbone

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "KINDS",
    "Backbone",
    "BackboneKind",
    "decoder",
    "default_latent",
    "encoder",
    "for_tables",
    "register_backbone",
    "resolve",
    "translator",
]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class BackboneKind:
    """One entry of the registry: which shapes a kind of network takes and how to build it.

    Parameters
    ----------
    fits : callable
        ``fits(shape) -> bool``: whether the kind can take samples of this shape.
    shapes : str
        The accepted shapes in words, for error messages.
    encoder : callable
        ``encoder(shape, out, spec) -> nn.Module``.
    decoder : callable
        ``decoder(shape, latent, spec, heads) -> nn.Module``.
    translator : callable
        ``translator(shape, spec, cond) -> nn.Module``.
    default : bool, default=True
        Whether the kind may be chosen by shape alone. The first registered one that fits wins.
    """

    fits: Callable[[Shape], bool]
    shapes: str
    encoder: Callable[[Shape, int, Backbone], nn.Module]
    decoder: Callable[[Shape, int, Backbone, int], nn.Module]
    translator: Callable[[Shape, Backbone, int], nn.Module]
    default: bool = True


def _has_rank(rank: int) -> Callable[[Shape], bool]:
    return lambda shape: len(shape) == rank


KINDS: dict[str, BackboneKind] = {
    "tcn": BackboneKind(
        _has_rank(2),
        "a window (T, C)",
        temporal.tcn_encoder,
        temporal.tcn_decoder,
        temporal.tcn_translator,
    ),
    "gru": BackboneKind(
        _has_rank(2),
        "a window (T, C)",
        temporal.gru_encoder,
        temporal.gru_decoder,
        temporal.gru_translator,
        default=False,
    ),
    "conv": BackboneKind(
        _has_rank(3),
        "an image (C, H, W)",
        conv.image_encoder,
        conv.image_decoder,
        conv.image_translator,
    ),
    "conv3d": BackboneKind(
        _has_rank(4),
        "a clip (T, C, H, W)",
        video.clip_encoder,
        video.clip_decoder,
        video.clip_translator,
    ),
    "mlp": BackboneKind(
        lambda shape: len(shape) >= 1,
        "any shape, flattened",
        mlp.mlp_encoder,
        mlp.mlp_decoder,
        mlp.mlp_translator,
    ),
}


def register_backbone(name: str, kind: BackboneKind) -> None:
    """Add a kind of network under a new name.

    Parameters
    ----------
    name : str
        The name by which `Backbone` asks for it.
    kind : BackboneKind
        Predicate and builders. With ``default=True`` it serves shapes that no earlier kind but
        ``mlp`` fits.

    Raises
    ------
    InputError
        If the name is taken.
    """
    if name in KINDS:
        taken = ", ".join(KINDS)
        msg = f"name: found {name!r}, which is taken; accepted is a name other than {taken}."
        raise InputError(msg)
    KINDS[name] = kind


def resolve(shape: Sequence[int], spec: Backbone | str | None = None) -> tuple[str, Backbone]:
    """Decide which kind of network serves samples of this shape.

    Parameters
    ----------
    shape : sequence of int
        Shape of one sample, without the batch axis.
    spec : Backbone, str or None
        What the user asked for; a string is the name.

    Returns
    -------
    name : str
        Name of the kind.
    spec : Backbone
        The specification, completed with that name.

    Raises
    ------
    InputError
        If the name is unknown or the kind does not take this shape.
    InputTypeError
        If ``spec`` is of another type.

    Examples
    --------
    >>> resolve((3, 32, 32))[0], resolve((100, 5), "gru")[0]
    ('conv', 'gru')
    """
    shape = _checked_shape(shape)
    if spec is None or isinstance(spec, str):
        spec = Backbone(name=spec)
    elif not isinstance(spec, Backbone):
        msg = f"backbone: found {type(spec).__name__}; accepted are None, a name ({', '.join(KINDS)}) or a Backbone."
        raise InputTypeError(msg)
    name = spec.name
    if name is None:
        # the catch-all comes last, behind kinds registered later
        candidates = [*(n for n in KINDS if n != "mlp"), "mlp"]
        name = next(n for n in candidates if KINDS[n].default and KINDS[n].fits(shape))
    elif name not in KINDS:
        msg = f"backbone: found {name!r}; accepted are {', '.join(KINDS)}, or None for the default."
        raise InputError(msg)
    elif not KINDS[name].fits(shape):
        options = ", ".join(n for n, kind in KINDS.items() if kind.fits(shape))
        msg = (
            f"backbone: found {name!r} for samples of shape {shape}, but it takes "
            f"{KINDS[name].shapes}; accepted for this shape are {options}."
        )
        raise InputError(msg)
    return name, Backbone(name, spec.hidden, spec.activation, spec.dropout)


def encoder(shape: Sequence[int], out: int, spec: Backbone | str | None = None) -> nn.Module:
    """Build a network from a sample to a vector: ``(B, *shape) -> (B, out)``.

    Parameters
    ----------
    shape : sequence of int
        Shape of one sample, without the batch axis.
    out : int
        Length of the output vector, at least 1.
    spec : Backbone, str or None, default=None
        Which network; None chooses by the shape.

    Returns
    -------
    torch.nn.Module
        The network, with linear output.

    Raises
    ------
    InputError
        If the backbone does not fit the shape, or ``out`` is below 1.

    Examples
    --------
    >>> import torch
    >>> encoder((1, 28, 28), 16)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 16])
    """
    name, full = resolve(shape, spec)
    return KINDS[name].encoder(_checked_shape(shape), _count("out", out), full)


def decoder(shape: Sequence[int], latent: int, spec: Backbone | str | None = None, heads: int = 1) -> nn.Module:
    """Build a network from a code to a sample: ``(B, latent) -> (B, *shape)``.

    Parameters
    ----------
    shape : sequence of int
        Shape of one sample, without the batch axis.
    latent : int
        Length of the code, at least 1.
    spec : Backbone, str or None, default=None
        Which network; None chooses by the shape.
    heads : int, default=1
        Number of outputs of the sample's shape (2 for a mean and a spread). More than one gives
        ``(B, heads, *shape)``.

    Returns
    -------
    torch.nn.Module
        The network, with linear output: data are expected on a standardised scale.

    Raises
    ------
    InputError
        If the backbone does not fit the shape, or ``latent`` or ``heads`` is below 1.

    Examples
    --------
    >>> import torch
    >>> decoder((50, 3), 8, heads=2)(torch.zeros(4, 8)).shape
    torch.Size([4, 2, 50, 3])
    """
    name, full = resolve(shape, spec)
    return KINDS[name].decoder(_checked_shape(shape), _count("latent", latent), full, _count("heads", heads))


def translator(shape: Sequence[int], spec: Backbone | str | None = None, cond: int = 0) -> nn.Module:
    """Build a network from a sample to one of the same shape, without a bottleneck.

    For denoisers, score networks and inpainting: a U-Net for images and clips, dilated
    convolutions for windows, a multilayer perceptron for tables.

    Parameters
    ----------
    shape : sequence of int
        Shape of one sample, without the batch axis.
    spec : Backbone, str or None, default=None
        Which network; None chooses by the shape.
    cond : int, default=0
        Length of the condition vector (a time embedding, a class code). If above 0 the network is
        called with a second argument ``(B, cond)``, which scales and shifts the hidden layers.

    Returns
    -------
    torch.nn.Module
        ``(B, *shape) -> (B, *shape)``, linear output.

    Raises
    ------
    InputError
        If the backbone does not fit the shape, or ``cond`` is below 0.

    Examples
    --------
    >>> import torch
    >>> net = translator((5,), cond=4)
    >>> net(torch.zeros(3, 5), torch.zeros(3, 4)).shape
    torch.Size([3, 5])
    """
    name, full = resolve(shape, spec)
    return KINDS[name].translator(_checked_shape(shape), full, _count("cond", cond, least=0))


def for_tables(shape: Sequence[int], asked: Backbone | str | None, own: Backbone) -> Backbone | str | None:
    """Choose a method's own network for rows of a table, unless another was asked for.

    Parameters
    ----------
    shape : sequence of int
        Shape of one sample.
    asked : Backbone, str or None
        What was asked for; None leaves the choice open.
    own : Backbone
        The method's own network for tables.

    Returns
    -------
    Backbone, str or None
        What :func:`encoder` and its like take; None for samples other than rows.

    Examples
    --------
    >>> small = Backbone("mlp", hidden=(8,))
    >>> for_tables((5,), None, small).hidden, for_tables((5,), "mlp", small), for_tables((1, 8, 8), None, small)
    ((8,), 'mlp', None)
    """
    return own if asked is None and resolve(shape)[0] == "mlp" else asked


def default_latent(shape: Sequence[int]) -> int:
    """Choose the length of the code for samples of this shape.

    One more than the square root of the number of values, at most 64, and below the number of
    values, so that the code is always a bottleneck (a single value keeps 1).

    Parameters
    ----------
    shape : sequence of int
        Shape of one sample, without the batch axis.

    Returns
    -------
    int
        Length of the code, 1 to 64.

    Raises
    ------
    InputError
        If the shape is empty or holds a size below 1.

    Examples
    --------
    >>> [default_latent(s) for s in [(2,), (6,), (100, 5), (1, 28, 28), (3, 64, 64)]]
    [1, 3, 23, 29, 64]
    """
    n = math.prod(_checked_shape(shape))
    return max(1, min(64, 1 + math.isqrt(n), n - 1))


def _checked_shape(shape: Sequence[int]) -> Shape:
    accepted = (
        "accepted is the shape of one sample without the batch axis: (d,), (T, C), (C, H, W) or "
        "(T, C, H, W), each size a whole number of at least 1."
    )
    if isinstance(shape, str) or not isinstance(shape, Sequence):
        msg = f"shape: found {shape!r}; {accepted}"
        raise InputTypeError(msg)
    if not shape or not all(isinstance(s, Integral) and s >= 1 for s in shape):
        msg = f"shape: found {tuple(shape)}; {accepted}"
        raise InputError(msg)
    return tuple(int(s) for s in shape)


def _count(name: str, value: int, least: int = 1) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        msg = f"{name}: found {value!r}; accepted is a whole number of at least {least}."
        raise InputError(msg)
    return int(value)
