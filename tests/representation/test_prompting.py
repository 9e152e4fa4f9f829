from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import genad
from genad.core.calibration import BestF, Conformal
from genad.core.registry import Card, Family
from genad.data.kinds import Kind
from genad.data.log import Log
from genad.data.samples import ArraySamples, Subset
from genad.errors import InputError
from genad.foundation.llm import CapabilityError
from genad.foundation.scripted import Scripted
from genad.foundation.usage import Budget
from genad.representation.prompting import (
    PromptDetector,
    PromptNet,
    TemplateAdapter,
    UnitAdapter,
    UnitSamples,
    Verdicts,
    from_buffer,
    padded,
    to_buffer,
    units_of,
)


@dataclass(eq=False, repr=False)
class Counter(PromptDetector):
    """Counts what it is asked: the score is the number of alarms, unknown for a unit that says nothing."""

    name = "counter"
    card = Card(
        title="", authors="", venue="", year=2026, family=Family.LANGUAGE_MODEL, kinds=(Kind.LOG,)
    )  # fmt: skip

    def build(self, shape):
        return PromptNet(normal=torch.zeros(()), anomalous=torch.zeros(()))

    def study(self, net, model, units):
        net.normal = torch.tensor(float(len(units)))
        net.anomalous = torch.tensor(float(len(self.labelled_anomalies)))

    def judge(self, net, model, units, *, known):
        self.__dict__.setdefault("asked", []).append(len(units))
        rows = [[float("alarm" in line) for line in unit] for unit in units]
        scores = np.array([np.nan if unit == ["?"] else sum(row) for unit, row in zip(units, rows, strict=True)])
        return Verdicts(scores, ["why"] * len(units), ["abstained" if s != s else "ok" for s in scores], padded(rows))


LOOSE = Conformal(alpha=0.05)
SESSIONS = [["up", "down"], ["up", "alarm", "down"]] * 100


@pytest.fixture
def fitted():
    return Counter(llm=Scripted(), threshold=LOOSE).fit(SESSIONS)


def test_units_and_their_subsets():
    samples = UnitSamples([["a"], ["b"], ["c"]])
    inner = Subset(Subset(samples, torch.tensor([2, 0])), torch.tensor([1]))
    assert units_of(inner) == [["a"]]
    assert samples.batch(torch.tensor([2, 1])).x.tolist() == [[2.0], [1.0]]
    with pytest.raises(InputError, match="X: samples of type ArraySamples hold no texts"):
        units_of(ArraySamples(torch.zeros(2, 3)))


def test_each_held_out_unit_is_asked_about_once(fitted):
    assert fitted.asked == [40]
    assert fitted.net_.normal == 160
    assert len(fitted.calibration_scores_) == 40


def test_labelled_anomalies_reach_the_method_and_are_not_scored_for_nothing():
    y = [0] * 200 + [1] * 5
    detector = Counter(llm=Scripted(), threshold=LOOSE).fit(SESSIONS + [["alarm"]] * 5, y)
    assert (int(detector.net_.normal), int(detector.net_.anomalous)) == (160, 5)
    assert detector.asked == [40]
    assert detector.labelled_anomalies == []


def test_thresholds_that_need_labels_get_the_labelled_ones():
    odd = [["alarm"] * 3] * 5
    detector = Counter(llm=Scripted(), threshold=BestF()).fit(SESSIONS + odd, [0] * 200 + [1] * 5)
    assert detector.asked == [40, 5]
    assert detector.predict(odd[:1] + SESSIONS[:2]).tolist() == [-1, 1, 1]


def test_an_unknown_unit_gets_the_score_of_a_usual_one_whatever_is_beside_it(fitted):
    middle = float(np.median(fitted.calibration_scores_))
    alone = fitted.anomaly_score([["?"]])[0]
    beside = fitted.anomaly_score([["?"], ["alarm", "alarm", "alarm"]])
    assert alone == beside[0] == middle
    assert beside[1] == 3.0
    assert fitted.status_ == ["abstained", "ok"]


def test_answers_have_the_shape_of_the_longest_unit(fitted):
    units = [["up"], ["up", "alarm", "down"]]
    found = fitted.detect(units)
    assert found.maps.tolist() == [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    assert found.restored == units
    assert found.meta["reasons"] == ["why", "why"]
    assert found.meta["llm_status"] == {"ok": 2}
    part = found.explain(1).parts[0]
    assert (part.name, part.observed, part.share) == ("event 2", "alarm", 1.0)


def test_restoring_asks_nothing(fitted):
    before = len(fitted.asked)
    assert fitted.restore([["up"], ["alarm", "down"]]) == [["up"], ["alarm", "down"]]
    assert len(fitted.asked) == before
    with pytest.raises(InputError, match="mask: a log takes none"):
        fitted.restore([["up"]], mask=[[True]])


def test_a_method_without_places_spreads_its_score():
    class Blind(Counter):
        def judge(self, net, model, units, *, known):
            return Verdicts(np.full(len(units), 2.0), [""] * len(units), ["ok"] * len(units))

    maps = Blind(llm=Scripted(), threshold=LOOSE).fit(SESSIONS).anomaly_map([["a"], ["a", "b"]])
    assert maps.tolist() == [[2.0, 0.0], [1.0, 1.0]]


def test_buffers_keep_plain_values():
    value = {"text": "Grüße\ud800", "n": [1, 2.5, None]}
    assert from_buffer(to_buffer(value)) == value


def test_what_a_model_lacks_is_said_before_it_is_asked():
    with pytest.raises(CapabilityError, match="llm: counter needs chat; scripted offers embedding"):
        Counter(llm=Scripted(capabilities=["embedding"])).fit(SESSIONS)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"llm": 3}, "llm: a int was given; use an address"),
        ({"llm": Scripted(), "budget": 0}, "budget: 0 was given; use a whole number of at least 1"),
        ({"llm": Scripted(), "cache": 3}, "cache: a int was given; use the path of a file"),
        ({"llm": "http://localhost:1/v1"}, "llm_model: none was given"),
        ({"llm": Scripted(), "llm_model": "qwen3"}, "llm_model: 'qwen3' was given without an address"),
        ({"llm": Scripted(), "api_key_env": "KEY"}, "api_key_env: 'KEY' was given without an address"),
    ],
)
def test_bad_parameters_are_refused(params, message):
    with pytest.raises(InputError, match=message):
        Counter(**params).fit(SESSIONS)


def test_a_budget_holds_for_a_model_that_is_named():
    detector = Counter(llm="http://localhost:1/v1", llm_model="none", budget=7)
    assert detector.language_model().meter.budget == Budget(tokens=7)


def test_a_model_of_this_process_computes_where_the_detector_does(monkeypatch):
    asked = []

    def opened(where, model, **settings):
        asked.append((where, settings.get("device")))
        return Scripted()

    monkeypatch.setattr("genad.representation.prompting.open_model", opened)
    Counter(device="cpu").language_model()
    Counter(llm="http://localhost:1/v1", llm_model="none", device="cpu").language_model()
    assert asked == [(None, "cpu"), ("http://localhost:1/v1", None)]


def test_answers_are_kept_in_a_file(tmp_path):
    model = Scripted(["yes"])
    detector = Counter(llm=model, cache=str(tmp_path / "answers.jsonl"))
    first, second = (detector.language_model().chat("well?").text for _ in range(2))
    assert first == second == "yes"
    assert len(model.requests) == 1


def test_copies_share_the_model(fitted):
    assert copy.deepcopy(fitted).language_model() is fitted.llm


def test_a_detector_with_a_given_model_cannot_be_saved(fitted, tmp_path):
    with pytest.raises(InputError, match="llm: a Scripted cannot be saved"):
        fitted.save(tmp_path / "x.genad")


def test_messages_or_templates_of_a_log():
    log = Log.from_messages(["opened port 80", "opened port 443", "user ann left"])
    assert UnitAdapter().fit(log.sessions("line")).samples.units[1] == ["opened port 443"]
    adapter = TemplateAdapter()
    assert adapter.fit(log.sessions("line")).samples.units[1] == ["opened port <*>"]
    later = Log.from_messages(["opened port 8080", "disk 7 is full", "disk 8 is full"])
    # Templates of the later log do not count: what none of the first fits is masked.
    assert adapter.transform(later.sessions("line")).samples.units == [
        ["opened port <*>"], ["disk <*> is full"], ["disk <*> is full"]
    ]  # fmt: skip
    again = TemplateAdapter.from_state(adapter.state())
    assert again.transform(later.sessions("line")).samples.units[0] == ["opened port <*>"]
    assert again.names == ["event 1"]


def test_the_face_creates_the_methods():
    names = set(genad.list_detectors()) if hasattr(genad, "list_detectors") else set()
    assert {"log_prompt", "log_config_localizer", "unstable_logs", "line_likelihood"} <= {
        getattr(name, "name", name) for name in names
    }
