"""Building blocks of detectors: backbones by shape, distributions, memories, mixtures and flows.

Plain ``torch`` modules and functions; none of them knows about detectors, scores or thresholds.
"""

from __future__ import annotations

from genad.nn.activation import ACTIVATIONS, activation_module
from genad.nn.backbone import (
    Backbone,
    BackboneKind,
    decoder,
    default_latent,
    encoder,
    register_backbone,
    resolve,
    translator,
)
from genad.nn.conv import ResidualBlock, UNet
from genad.nn.embedding import FourierFeatures, TimeEmbedding
from genad.nn.flow import PlanarFlow
from genad.nn.gaussian import (
    DiagGaussianHead,
    gaussian_log_prob,
    kl_normal_normal,
    kl_to_standard_normal,
)
from genad.nn.memory import FIFOMemory, nearest_distances, nearest_neighbors
from genad.nn.mixture import covariance_penalty, mixture_energy, mixture_parameters
from genad.nn.mlp import ConditionalMLP, mlp
from genad.nn.schedule import NoiseSchedule
from genad.nn.sparse_rnn import SparseSkipRNN

__all__ = [
    "ACTIVATIONS",
    "Backbone",
    "BackboneKind",
    "ConditionalMLP",
    "DiagGaussianHead",
    "FIFOMemory",
    "FourierFeatures",
    "NoiseSchedule",
    "PlanarFlow",
    "ResidualBlock",
    "SparseSkipRNN",
    "TimeEmbedding",
    "UNet",
    "activation_module",
    "covariance_penalty",
    "decoder",
    "default_latent",
    "encoder",
    "gaussian_log_prob",
    "kl_normal_normal",
    "kl_to_standard_normal",
    "mixture_energy",
    "mixture_parameters",
    "mlp",
    "nearest_distances",
    "nearest_neighbors",
    "register_backbone",
    "resolve",
    "translator",
]
