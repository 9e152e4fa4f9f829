"""Activation functions by name, and the weight scale that suits each of them."""

from __future__ import annotations

import math

import torch
from torch import nn

from genad.errors import InputError

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
}

LEAKY_SLOPE = 0.2


def activation_module(name: str) -> nn.Module:
    """Build the activation layer with this name.

    Parameters
    ----------
    name : str
        One of ``relu``, ``silu``, ``gelu``, ``tanh``, ``softplus``, ``elu`` and ``leaky_relu``
        (slope 0.2). ``silu``, ``gelu``, ``tanh`` and ``softplus`` are smooth, which methods that
        differentiate a score with respect to its input need.

    Returns
    -------
    torch.nn.Module
        A layer without parameters that keeps the shape.

    Raises
    ------
    InputError
        If the name is unknown.

    Examples
    --------
    >>> activation_module("tanh")
    Tanh()
    """
    if name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        msg = f"activation: found {name!r}; accepted are {known}. Choose one of these names."
        raise InputError(msg)
    if name == "leaky_relu":
        return nn.LeakyReLU(LEAKY_SLOPE)
    return ACTIVATIONS[name]()


def scaled_init_(layer: nn.Module, activation: str | None = None) -> nn.Module:
    """Draw the weights of a convolution so that signals keep their size through the network.

    The convolutional encoders and decoders have no normalisation layer, so the scale at the start
    of training comes from the weights alone. The fan-in of a transposed convolution is counted per
    output position (kernel over stride); counting the whole kernel would start it too small.

    Parameters
    ----------
    layer : torch.nn.Module
        A convolution or transposed convolution; changed in place.
    activation : str or None
        Name of the activation that follows; None for a linear output.

    Returns
    -------
    torch.nn.Module
        The same layer.

    References
    ----------
    He et al. (2015), Delving deep into rectifiers, ICCV.
    """
    weight = layer.weight
    bias = layer.bias
    if not isinstance(weight, torch.Tensor):  # pragma: no cover - a programming error
        raise TypeError(type(layer).__name__)
    if getattr(layer, "transposed", False):
        stride = layer.stride
        steps = math.prod(stride) if isinstance(stride, tuple) else 1
        fan_in = weight.shape[0] * math.prod(weight.shape[2:]) / steps
    else:
        fan_in = math.prod(weight.shape[1:])
    gain = 1.0 if activation in {None, "tanh"} else math.sqrt(2.0)
    with torch.no_grad():
        weight.normal_(0.0, gain / math.sqrt(fan_in))
        if isinstance(bias, torch.Tensor):
            bias.zero_()
    return layer
