"""What detectors that ask a language model share: the model and its budget, units as texts, and answers kept apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from genad.core.detector import Detector
from genad.core.inference import Answer, Want
from genad.core.parameters import check_whole
from genad.core.training import Phase
from genad.data.adapters import Adapter, Array, Loaded
from genad.data.kinds import Kind
from genad.data.log import Sessions, as_sessions
from genad.data.samples import Batch, Samples, Subset
from genad.errors import InputError
from genad.foundation.llm import LanguageModel, need, open_model
from genad.foundation.usage import Budget, Meter


@dataclass(slots=True)
class UnitSamples:
    """Units that are no numbers: texts, lists of texts, or anything a prompt can be made of.

    Attributes
    ----------
    units : list
        One a unit.
    """

    units: list[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the number that stands for a unit in a batch: its position."""
        return (1,)

    def __len__(self) -> int:
        return len(self.units)

    def batch(self, indices: torch.Tensor) -> Batch:
        """Return positions; :func:`units_of` gives the units themselves."""
        return Batch(indices.to(torch.float32)[:, None])

    def stretch(self, start: int, stop: int) -> Batch:
        """Return the positions from ``start`` to ``stop``."""
        return self.batch(torch.arange(start, stop))

    def to(self, device: torch.device) -> UnitSamples:  # noqa: ARG002 - texts live nowhere else
        """Return the same units."""
        return self


def units_of(samples: Samples) -> list[Any]:
    """Return the units behind samples, subsets resolved."""
    if isinstance(samples, Subset):
        units = units_of(samples.samples)
        return [units[i] for i in samples.indices.tolist()]
    if not isinstance(samples, UnitSamples):
        raise InputError(
            f"X: samples of type {type(samples).__name__} hold no texts; fit on a log, texts or sequences."
        )
    return samples.units


@dataclass
class Verdicts:
    """What a language model made of some units.

    Attributes
    ----------
    scores : float64 array of shape (n,)
        Higher is more anomalous; NaN where the model abstained, which :meth:`PromptDetector.fill` replaces.
    reasons : list of str
        Why, in the model's words or in those of the method; "" where nothing was said. Never executed.
    status : list of str
        ``"ok"``, ``"repaired"``, ``"retried"``, ``"fallback"`` or ``"abstained"`` a unit.
    maps : float32 array of shape (n, parts) or None
        Where in the unit, one value a part, 0 beyond its end.
    """

    scores: NDArray[np.float64]
    reasons: list[str]
    status: list[str]
    maps: NDArray[np.float32] | None = None


class PromptNet(nn.Module):
    """Holds what a prompting detector learns, as buffers."""

    def __init__(self, **buffers: torch.Tensor) -> None:
        super().__init__()
        for name, value in buffers.items():
            self.register_buffer(name, value)


@dataclass(eq=False, repr=False)
class PromptDetector(Detector):
    """A detector that asks a language model about each unit.

    A method says what its model must be able to do (:attr:`needs`), may learn from normal units in :meth:`study`, and
    fills in :meth:`judge`. Text of units and of models is data: it is delimited in prompts and never executed.

    Parameters
    ----------
    llm : str, LanguageModel or None
        The small local model when None; the address of a service that speaks the OpenAI protocol; the path of a GGUF
        file; or a model made with :func:`genad.foundation.llm.open_model`.
    llm_model : str, optional
        The model's name at the service.
    api_key_env : str, optional
        Environment variable that holds the key of the service; the key itself is never kept.
    budget : int, optional
        Most tokens that fit and every later call may use; answers beyond it are missing, and marked so.
    """

    llm: Any = field(default=None, kw_only=True)
    llm_model: str | None = field(default=None, kw_only=True)
    api_key_env: str | None = field(default=None, kw_only=True)
    budget: int | None = field(default=None, kw_only=True)

    stackable = False
    #: Capabilities of :data:`genad.foundation.llm.CAPABILITIES` without which the method cannot work.
    needs: ClassVar[tuple[str, ...]] = ("chat",)

    # ------------------------------------------------------------------ hooks

    def study(self, net: Any, model: LanguageModel, units: Sequence[Any]) -> None:
        """Learn from normal units, into buffers of the net."""

    def judge(self, net: Any, model: LanguageModel, units: Sequence[Any], *, known: bool) -> Verdicts:
        """Return what the model makes of units; ``known`` as in :class:`~genad.data.samples.Batch`."""
        raise NotImplementedError

    def fill(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give units the model abstained on the median of the others, 0 when there is none."""
        missing = np.isnan(scores)
        known = scores[~missing]
        return np.where(missing, np.median(known) if known.size else 0.0, scores)

    # ------------------------------------------------------------------ the detector

    def language_model(self) -> LanguageModel:
        """Return the language model, opened once; nothing is loaded or asked before it is used.

        Raises
        ------
        InputError
            When it is named wrongly, or cannot do what the method needs.
        """
        model: LanguageModel | None = self.__dict__.get("_model")
        if model is None:
            if self.llm is None or isinstance(self.llm, str):
                meter = Meter(None if self.budget is None else Budget(tokens=self.budget))
                model = open_model(self.llm, self.llm_model, api_key_env=self.api_key_env, meter=meter)
            else:
                model = self.llm
            need(model, *self.needs, who=self.name)
            self.__dict__["_model"] = model
        return model

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.llm is not None and not isinstance(self.llm, str) and not isinstance(self.llm, LanguageModel):
            raise InputError(
                f"llm: a {type(self.llm).__name__} was given; use an address, the path of a GGUF file, a model of "
                "genad.foundation.llm.open_model, or None for the small local model."
            )
        if self.budget is not None:
            check_whole(self, "budget")
        self.__dict__.pop("_model", None)
        self.language_model()

    def _ingest(self, X: Any, *, reset: bool, y: Any = None) -> Loaded:  # noqa: ARG002 - no scales to learn
        sessions = as_sessions(X)
        if reset:
            self.adapter_ = UnitAdapter()
            self.n_features_in_ = 1
        return self.adapter_.transform(sessions)

    def phases(self, net: nn.Module) -> list[Phase]:  # noqa: ARG002 - the hook's signature
        """Return no phases: a prompt is not trained."""
        return []

    def build(self, shape: tuple[int, ...]) -> nn.Module:  # noqa: ARG002 - units have no shape
        """Make a network that only remembers."""
        return PromptNet()

    def finish(self, net: Any, samples: Samples) -> None:
        """Study the training units."""
        self.study(net, self.language_model(), units_of(samples))

    def _run(self, samples: Samples, *want: Want, known: bool = False) -> Answer:
        """Ask about every unit; reasons and states of the last call stay in ``reasons_`` and ``status_``."""
        units = units_of(samples)
        found = self.judge(self.net_, self.language_model(), units, known=known)
        self.reasons_, self.status_ = found.reasons, found.status
        answer = Answer(self.fill(np.asarray(found.scores, np.float64)))
        if "map" in want:
            answer.maps = np.asarray(answer.scores, np.float32)[:, None] if found.maps is None else found.maps
        if "restored" in want:
            answer.restored = np.arange(len(units), dtype=np.float32)[:, None]
        return answer

    def describe(self) -> dict[str, Any]:
        """Return plain facts of the fitted detector, with the model's name and what was asked of it."""
        model = self.language_model()
        status = getattr(self, "status_", [])
        counts = {name: status.count(name) for name in dict.fromkeys(status)}
        return super().describe() | {"llm": model.name, "llm_status": counts, "llm_usage": str(model.meter.usage)}


@dataclass
class UnitAdapter(Adapter):
    """Sessions of a log as lists of texts: the messages themselves where there are some, else the names of events.

    What a prompting detector calls restored is its unit as it came, unless the method knows better.
    """

    kind: Kind = Kind.LOG

    @property
    def names(self) -> list[str]:
        """Return no names: a unit has as many events as it has."""
        return []

    def fit(self, X: Sessions) -> Loaded:
        """Return the texts."""
        return self.transform(X)

    def transform(self, X: Sessions) -> Loaded:
        """Return the texts of each session."""
        units = []
        for i in range(len(X)):
            part = slice(int(X.offsets[i]), int(X.offsets[i + 1]))
            if X.log is not None and X.rows is not None:
                units.append([str(text) for text in X.log.message[X.rows[part]]])
            else:
                units.append([X.vocabulary[event] for event in X.events[part]])
        return Loaded(UnitSamples(units), X, X)

    def native(self, values: Array, loaded: Loaded, mask: Any = None) -> list[list[str]]:  # noqa: ARG002 - refused in hidden
        """Return the units at the positions that ``values`` hold."""
        units = units_of(loaded.samples)
        return [units[int(i)] for i in values[:, 0]]

    def columns(self, values: Array) -> Array:
        """Return positions of units."""
        return values

    def observed(self, loaded: Loaded) -> Array:
        """Return positions of units."""
        return np.arange(len(loaded.samples), dtype=np.float32)[:, None]

    def half_widths(self, bounds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return NaN: texts have no order."""
        return np.full(len(bounds), np.nan)

    def state(self) -> dict[str, Any]:
        """Return nothing: nothing is learnt."""
        return {}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> UnitAdapter:  # noqa: ARG003 - nothing is learnt
        """Make the adapter again."""
        return cls()
