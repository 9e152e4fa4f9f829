"""What detectors that ask a language model share: the model and its budget, units as texts, and what is learnt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import nn

from genad.core.calibration import Conformal
from genad.core.detector import Detector
from genad.core.inference import Answer, Want
from genad.core.parameters import check_whole
from genad.core.runtime import resolve_device
from genad.core.splits import Labels
from genad.core.training import Phase
from genad.data.adapters import Adapter, Loaded
from genad.data.log import as_sessions
from genad.data.samples import Samples, Subset
from genad.errors import InputError
from genad.foundation.llm import LanguageModel, model_file, names_llama_cpp, need, open_model
from genad.foundation.usage import Budget, Meter
from genad.representation.units import (
    TemplateAdapter,
    UnitAdapter,
    UnitSamples,
    holds_units,
    lines_of,
    text_array,
    units_of,
)
from genad.representation.verdicts import STATES, Verdicts, highest, padded, scored_once, worst

__all__ = [
    "STATES",
    "PromptDetector",
    "PromptNet",
    "TemplateAdapter",
    "UnitAdapter",
    "UnitSamples",
    "Verdicts",
    "from_buffer",
    "highest",
    "holds_units",
    "lines_of",
    "padded",
    "scored_once",
    "text_array",
    "to_buffer",
    "units_of",
    "worst",
]


class PromptNet(nn.Module):
    """Holds what a prompting detector learns, as buffers."""

    def __init__(self, **buffers: torch.Tensor) -> None:
        super().__init__()
        for name, value in buffers.items():
            self.register_buffer(name, value)


def to_buffer(value: Any) -> torch.Tensor:
    """Return plain values (texts, numbers, lists, dicts) as a tensor of bytes, to be kept in a model file.

    Examples
    --------
    >>> from_buffer(to_buffer({"task": "judge", "k": [1, 2]}))
    {'task': 'judge', 'k': [1, 2]}
    """
    raw = json.dumps(value, ensure_ascii=False).encode("utf-8", errors="surrogatepass")
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8)


def from_buffer(tensor: torch.Tensor) -> Any:
    """Return what :func:`to_buffer` was given."""
    return json.loads(tensor.cpu().numpy().tobytes().decode("utf-8", errors="surrogatepass"))


@dataclass(eq=False, repr=False)
class PromptDetector(Detector):
    """A detector that asks a language model about each unit.

    A method says what its model must be able to do (:attr:`needs`), may learn from normal units in :meth:`study`, and
    fills in :meth:`judge`. Text of units and of models is data: it is delimited in prompts and never executed.

    Parameters
    ----------
    llm : str, LanguageModel or None
        The small local model when None; the address of a service that speaks the OpenAI protocol; the path of a GGUF
        file, after ``"llamacpp:"`` for llama.cpp to compute it; or a model made with
        :func:`genad.foundation.llm.open_model`, with which a detector cannot be saved.
    llm_model : str, optional
        The model's name at the service.
    api_key_env : str, optional
        Environment variable that holds the key of the service; the key itself is never kept.
    budget : int, optional
        Most tokens that fit and every later call may use, for a model that is named and not given; answers beyond it
        are missing, and marked so.
    cache : str, optional
        File that keeps answers, so that nothing is asked twice and a run that broke off goes on where it was.
    """

    llm: Any = field(default=None, kw_only=True)
    llm_model: str | None = field(default=None, kw_only=True)
    api_key_env: str | None = field(default=None, kw_only=True)
    budget: int | None = field(default=None, kw_only=True)
    cache: str | None = field(default=None, kw_only=True)

    stackable = False
    #: Capabilities of :data:`genad.foundation.llm.CAPABILITIES` without which the method cannot work.
    needs: ClassVar[tuple[str, ...]] = ("chat",)
    takes_backbone = False

    # ------------------------------------------------------------------ hooks

    def study(self, net: Any, model: LanguageModel, units: Sequence[Any]) -> None:
        """Learn from normal units, into buffers of the net; :attr:`labelled_anomalies` has those the user labelled."""

    def judge(self, net: Any, model: LanguageModel, units: Sequence[Any], *, known: bool) -> Verdicts:
        """Return what the model makes of units; ``known`` as in :class:`~genad.data.samples.Batch`."""
        raise NotImplementedError

    def expect(self, net: Any, units: Sequence[Any]) -> list[list[str]]:  # noqa: ARG002 - methods look at the net
        """Return the nearest normal units as texts, without asking: themselves, unless a method knows better."""
        return [self._lines(unit) for unit in units]

    def fill(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give units the model abstained on the median score of the held-out normal units, 0 when there is none."""
        missing = np.isnan(scores)
        # While these are themselves being scored, their own median stands in.
        known = getattr(self, "calibration_scores_", scores[~missing])
        return np.where(missing, np.median(known) if len(known) else 0.0, scores)

    def unit_adapter(self) -> Adapter:
        """Return the unfitted bridge from sessions to units."""
        return UnitAdapter()

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
            if self.llm is None or isinstance(self.llm, str | Path):
                meter = Meter(None if self.budget is None else Budget(tokens=self.budget))
                # A model of this process computes where the adapters are that a method may train for it.
                local = not self._names_address() and not names_llama_cpp(self.llm)
                place = {"device": str(resolve_device(self.device))} if local else {}
                model = open_model(self.llm, self.llm_model, api_key_env=self.api_key_env, meter=meter, **place)
            else:
                model = self.llm
            need(model, *self.needs, who=self.name)
            if self.cache is not None:
                from genad.foundation.cache import Cached

                model = Cached(model, self.cache)
            self.__dict__["_model"] = model
        return model

    def _names_address(self) -> bool:
        return isinstance(self.llm, str) and self.llm.startswith(("http://", "https://"))

    @property
    def labelled_anomalies(self) -> list[Any]:
        """Units that ``y`` labels anomalous; there are some within ``fit`` alone."""
        found: list[Any] = self.__dict__.get("_labelled", [])
        return found

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.llm is not None and not isinstance(self.llm, str | Path) and not isinstance(self.llm, LanguageModel):
            raise InputError(
                f"llm: a {type(self.llm).__name__} was given; use an address, the path of a GGUF file, a model of "
                "genad.foundation.llm.open_model, or None for the small local model."
            )
        address = self._names_address()
        file = None if address or not isinstance(self.llm, str | Path) else model_file(self.llm)
        if file is not None and not file.exists():
            raise InputError(f"llm: {str(self.llm)!r} is neither an address (http://...) nor a file or folder.")
        if self.api_key_env is not None and not address:
            raise InputError(f"api_key_env: {self.api_key_env!r} was given without an address; give llm='http://...'.")
        if self.llm_model is not None and not address:
            raise InputError(f"llm_model: {self.llm_model!r} was given without an address; give llm='http://...'.")
        if self.budget is not None:
            check_whole(self, "budget")
        if self.cache is not None and not isinstance(self.cache, str | Path):
            raise InputError(f"cache: a {type(self.cache).__name__} was given; use the path of a file, or None.")
        self.__dict__.pop("_model", None)
        self.language_model()

    def _ingest(self, X: Any, *, reset: bool, y: Any = None) -> Loaded:  # noqa: ARG002 - no scales to learn
        sessions = as_sessions(X)
        if not reset:
            return self.adapter_.transform(sessions)
        self.adapter_ = self.unit_adapter()
        self.n_features_in_ = 1
        return self.adapter_.fit(sessions)

    def _split(self, samples: Samples, labels: Labels) -> tuple[Samples, Samples]:
        rows = torch.from_numpy(np.flatnonzero(labels.anomalous))
        self.__dict__["_labelled"] = units_of(Subset(samples, rows)) if len(rows) and holds_units(samples) else []
        return super()._split(samples, labels)

    def phases(self, net: nn.Module) -> list[Phase]:  # noqa: ARG002 - the hook's signature
        """Return no phases: a prompt is not trained."""
        return []

    def build(self, shape: tuple[int, ...]) -> nn.Module:  # noqa: ARG002 - units have no shape
        """Make a network that only remembers."""
        return PromptNet()

    def finish(self, net: Any, samples: Samples) -> None:
        """Study the training units."""
        self.study(net, self.language_model(), units_of(samples))

    def _calibrate(self, held: Samples, samples: Samples, labels: Labels) -> None:
        """Calibrate as every detector does, but ask about each held-out text once, and about no other in vain."""
        if not holds_units(samples):
            super()._calibrate(held, samples, labels)
            return
        self.__dict__.pop("_labelled", None)
        self.__dict__.pop("calibration_scores_", None)
        self.bounds_, self.pixels_ = np.full(1, np.nan), None
        with self._scoring():
            self.absorb(self.net_, held)
        answer, every = self._run(held, known=True), None
        self._keep_traits(answer)
        if labels.any_anomaly and getattr(self.threshold or Conformal(), "needs_labels", False):
            rows = np.flatnonzero(labels.anomalous)
            every = np.full(len(labels.values), np.nan)
            every[rows] = self._run(Subset(samples, torch.from_numpy(rows))).scores
        self._keep_anomalies(samples, labels, None if every is None else Answer(every))
        self._set_calibration(answer.scores, labels, every)

    def _run(self, samples: Samples, *want: Want, known: bool = False) -> Answer:
        """Ask about every unit; reasons and states of the last call stay in ``reasons_`` and ``status_``."""
        units = units_of(samples)
        found = self.judge(self.net_, self.language_model(), units, known=known)
        self.reasons_, self.status_ = list(found.reasons), list(found.status)
        answer = Answer(self.fill(np.asarray(found.scores, np.float64)))
        lengths = [len(self._lines(unit)) for unit in units]
        if "map" in want:
            answer.maps = np.zeros((len(units), max(lengths, default=0)), np.float32)
            if found.maps is not None:
                answer.maps[:, : found.maps.shape[1]] = found.maps[:, : answer.maps.shape[1]]
            else:
                # Nothing is known of where, so each part has the same.
                level = np.maximum(answer.scores, 0.0)
                for row, length, score in zip(answer.maps, lengths, level, strict=True):
                    row[:length] = score / length
        if "restored" in want:
            answer.restored = text_array(self.expect(self.net_, units))
        return answer

    def _lines(self, unit: Any) -> list[str]:
        adapter = self.adapter_
        return adapter.lines(unit) if isinstance(adapter, UnitAdapter) else lines_of(unit)

    def restore(self, X: Any, mask: Any = None) -> Any:
        """Return the nearest normal units, or units as they came where a method knows none; nothing is asked.

        Parameters
        ----------
        X : Log, Sessions, path or list of sequences
        mask : None
            Texts take none.

        Returns
        -------
        list of list of str
        """
        check_is_fitted(self, "net_")
        loaded = self._ingest(X, reset=False)
        if not holds_units(loaded.samples):
            return super().restore(X, mask)
        if mask is not None:
            self.adapter_.hidden(mask, loaded)
        return self.expect(self.net_, units_of(loaded.samples))

    def describe(self) -> dict[str, Any]:
        """Return plain facts of the fitted detector, what was asked of its model, and the reasons of the last call."""
        model = self.language_model()
        status = getattr(self, "status_", [])
        counts = {name: status.count(name) for name in dict.fromkeys(status)}
        found = super().describe()
        found["parameters"] = {k: str(v) if k == "llm" else v for k, v in found["parameters"].items()}
        return found | {
            "llm": model.name,
            "llm_status": counts,
            "llm_usage": str(model.meter.usage),
            "reasons": list(getattr(self, "reasons_", [])),
        }
