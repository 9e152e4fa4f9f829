"""The estimator: parameters, copies, files, messages and docstrings."""

from __future__ import annotations

import dataclasses
import json
import re
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import genad
from genad.core.calibration import Conformal
from genad.core.detector import Detector
from genad.core.persistence import load
from genad.core.registry import Card, Family, create, registered
from genad.core.training import Training
from genad.data.kinds import Kind
from genad.errors import GenadError, GenadWarning, InputError
from genad.nn import Backbone


def _own_fields(cls):
    """Return the names of the parameters that the method brings to those every detector has."""
    bases = [base for base in cls.__mro__[1:] if base.__module__.startswith("genad.core") and base is not cls]
    inherited = {f.name for base in bases if dataclasses.is_dataclass(base) for f in dataclasses.fields(base)}
    return [f.name for f in dataclasses.fields(cls) if f.name not in inherited]


def _same(one, two):
    """Compare parameters, detectors among them by their own parameters."""
    if isinstance(one, Detector):
        return type(one) is type(two) and _same(one.get_params(), two.get_params())
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(_same(one[k], two[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(_same, one, two))
    return one == two


def test_the_constructor_only_stores(cls):
    detector = cls()
    assert set(vars(detector)) == {f.name for f in dataclasses.fields(cls)}
    for f in dataclasses.fields(cls):
        assert getattr(detector, f.name) == (f.default if f.default_factory is dataclasses.MISSING else None)


def test_parameters_have_immutable_defaults(cls):
    for f in dataclasses.fields(cls):
        assert f.default is not dataclasses.MISSING, f"{f.name} has no default"
        assert isinstance(f.default, int | float | str | tuple | None), f"{f.name}={f.default!r}"


def test_clone_and_parameters_round_trip(first_case):
    detector = first_case.make(random_state=3, holdout=0.3)
    twin = clone(detector)
    assert twin is not detector
    assert _same(twin.get_params(), detector.get_params())
    other = type(detector)().set_params(**detector.get_params(deep=False))
    assert _same(other.get_params(), detector.get_params())
    with pytest.raises(ValueError, match="nonsense"):
        detector.set_params(nonsense=1)


def test_clone_of_a_fitted_detector_is_unfitted(first_case):
    twin = clone(first_case.fitted)
    assert set(vars(twin)) == {f.name for f in dataclasses.fields(twin)}
    with pytest.raises(NotFittedError):
        twin.anomaly_score(first_case.wrap(first_case.normal()))


def test_a_backbone_changes_the_network_or_is_refused(first_case):
    def network(width):
        detector = first_case.make(training=Training(updates=1), backbone=Backbone(hidden=(width,)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GenadWarning)
            detector.fit(first_case.wrap(first_case.normal()[:64]))
        return {name: tuple(value.shape) for name, value in detector.net_.state_dict().items()}

    if not type(first_case.make()).takes_backbone:
        with pytest.raises(InputError, match=r"backbone: .* has no network that it would change; leave it out"):
            network(6)
        return
    try:
        narrow = network(6)
    except InputError as error:  # some take no backbone of this form, and say so
        assert str(error).startswith("backbone: ")  # noqa: PT017 - one that is raised is checked
        return
    assert narrow != network(7)


def test_the_representation_makes_the_detector_again(first_case):
    detector = first_case.make(random_state=3, threshold=Conformal(alpha=0.2), verbose=False)
    detector.set_params(backbone=Backbone("mlp", hidden=(8,)))
    names = {cls.__name__: cls for cls in registered().values()}
    names |= {"Training": Training, "Conformal": Conformal, "Backbone": Backbone}
    again = eval(repr(detector), {"__builtins__": {}}, names)  # noqa: S307 - that it can be is the claim
    assert _same(again.get_params(), detector.get_params())


def test_create_makes_it_by_name(cls):
    assert type(create(cls.name)) is cls
    assert type(create(cls.name.replace("_", "-"))) is cls
    with pytest.raises(InputError, match="no such parameter"):
        create(cls.name, nonsense=1)


def test_the_card_is_filled_in(cls):
    card = cls.card
    assert isinstance(card, Card)
    assert card.title
    assert card.authors
    assert card.summary.endswith(".")
    assert 1950 < card.year < 2100
    assert card.kinds
    assert all(isinstance(kind, Kind) for kind in card.kinds)
    if card.family is not Family.WRAPPER and card.row:
        assert re.fullmatch(r"\d(\.\d)*-\d\d[a-z]?", card.row), card.row


def test_fit_returns_itself_and_reports(refit_case):
    case = refit_case
    detector = case.make(Training(updates=1))
    assert case.fit(detector, case.normal()) is detector
    facts = detector.describe()
    assert facts["kind"] == case.kind.value
    assert facts["seconds"] >= 0
    assert facts["calibration_units"] > 0
    assert detector.threshold_.promise.endswith(".")


@pytest.mark.parametrize("answer", [
    "anomaly_score", "score_samples", "decision_function", "predict", "p_value", "anomaly_map", "restore", "detect",
    "calibrate",
])  # fmt: skip
def test_an_unfitted_detector_says_so(first_case, answer):
    detector = first_case.make()
    with pytest.raises(NotFittedError, match="not fitted"):
        getattr(detector, answer)(first_case.wrap(first_case.normal()))


def test_an_unfitted_detector_is_not_saved(first_case, tmp_path):
    with pytest.raises(NotFittedError):
        first_case.make().save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_another_number_of_features_is_refused(number_case):
    case = number_case
    X = case.normal(seed=1)
    with pytest.raises(ValueError, match=r"feature|channel|shape|column"):
        case.fitted.anomaly_score(case.wrap(X[..., :-1]))


def test_infinite_values_are_refused(number_case):
    case = number_case
    X = case.normal()
    X[(2, *[1] * (X.ndim - 1)) if X.ndim < 4 else (2, *[0] * (X.ndim - 1))] = np.inf
    with pytest.raises(ValueError, match=r"inf"):
        case.fit(case.make(), X)
    with pytest.raises(ValueError, match=r"inf"):
        case.fitted.anomaly_score(case.wrap(X))


def test_empty_data_are_refused(case):
    X = case.normal()[:0]
    with pytest.raises(ValueError, match=r"0 sample|0 rows|empty|at least 1|no rows"):
        case.fit(case.make(), X)
    with pytest.raises(ValueError, match=r"0 sample|0 rows|empty|at least 1|no rows"):
        case.fitted.anomaly_score(case.wrap(X))


def test_data_of_one_axis_are_refused_where_rows_are_needed(array_case):
    if array_case.kind is Kind.SERIES:
        pytest.skip("one channel may be given as one axis")
    with pytest.raises(ValueError, match=r"1D|1-D|axis|axes|dimension|shape"):
        array_case.make().fit(np.arange(20.0))
    with pytest.raises(ValueError, match=r"1D|1-D|axis|axes|dimension|shape"):
        array_case.fitted.anomaly_score(np.arange(20.0))


@pytest.mark.parametrize(("parameter", "value"), [
    ("holdout", 0.0), ("holdout", 1.0), ("holdout", float("nan")), ("holdout", "half"),
    ("random_state", -1), ("random_state", 0.5), ("training", {"updates": 3}), ("training", "fast"),
    ("threshold", 0.5), ("device", "abacus"), ("backbone", "no such backbone"),
])  # fmt: skip
def test_wrong_common_parameters_are_named(first_case, parameter, value):
    detector = first_case.make().set_params(**{parameter: value})
    with pytest.raises(GenadError, match=f"^{parameter}"):
        first_case.fit(detector, first_case.normal())


def test_wrong_own_parameters_are_named(first_case):
    defaults = first_case.make().get_params(deep=False)
    for name in _own_fields(first_case.cls):
        # Any name will do for the file of a cache, and any words for what a system does.
        if isinstance(defaults[name], bool) or name in ("cache", "task"):
            continue
        detector = first_case.make().set_params(**{name: "no such value"})
        with pytest.raises(GenadError, match=name):
            first_case.fit(detector, first_case.normal())


def test_a_negative_count_is_named(first_case):
    defaults = first_case.make().get_params(deep=False)
    for name in _own_fields(first_case.cls):
        if isinstance(defaults[name], int) and not isinstance(defaults[name], bool):
            detector = first_case.make().set_params(**{name: -3})
            with pytest.raises(GenadError, match=name):
                first_case.fit(detector, first_case.normal())


def test_a_saved_detector_answers_with_the_same_bytes(case, tmp_path):
    X = case.wrap(case.normal(seed=1))
    path = case.fitted.save(tmp_path / "model.genad")
    assert [p.name for p in tmp_path.iterdir()] == ["model.genad"]
    again = load(path)
    assert type(again) is type(case.fitted)
    assert _same(again.get_params(), case.fitted.get_params())
    assert again.anomaly_score(X).tobytes() == case.fitted.anomaly_score(X).tobytes()
    assert again.p_value(X).tobytes() == case.fitted.p_value(X).tobytes()
    assert again.predict(X).tobytes() == case.fitted.predict(X).tobytes()
    one, two = again.detect(X), case.fitted.detect(X)
    assert one.maps.tobytes() == two.maps.tobytes()
    assert case.values(one.restored).tobytes() == case.values(two.restored).tobytes()
    np.testing.assert_array_equal(one.bounds, two.bounds)
    # A file of the loaded detector is the same file.
    assert again.save(tmp_path / "again.genad").read_bytes() == path.read_bytes()


def test_a_model_file_is_no_pickle(first_case, tmp_path):
    raw = first_case.fitted.save(tmp_path / "model.genad").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    # JSON first, and after it nothing but the numbers that the JSON lists.
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__")
    assert 8 + length + max(part["data_offsets"][1] for part in header.values()) == len(raw)
    assert {part["dtype"] for part in header.values()} <= {"F32", "F64", "I64", "I32", "U8", "BOOL"}


def test_the_untrained_face_is_public(cls):
    """Every detector is reachable as ``genad.Name``."""
    assert getattr(genad, cls.__name__) is cls


# ---------------------------------------------------------------------- docstrings


def _sections(cls):
    lines = (cls.__doc__ or "").expandtabs().splitlines()
    found, name = {"": []}, ""
    for line, rule in zip(lines, [*lines[1:], ""], strict=True):
        if rule.strip() and set(rule.strip()) == {"-"} and len(rule.strip()) == len(line.strip()):
            name = line.strip()
            found[name] = []
        elif not (line.strip() and set(line.strip()) == {"-"}):
            found[name].append(line)
    return {key: "\n".join(value) for key, value in found.items()}


def test_the_docstring_has_its_sections(cls):
    sections = _sections(cls)
    assert "Examples" in sections
    assert ">>>" in sections["Examples"]
    assert cls.__doc__.strip().splitlines()[0].endswith(".")
    if _own_fields(cls):
        assert "Parameters" in sections
    if cls.card.row:
        assert "References" in sections
        assert re.search(r"\b(19|20)\d\d\b", sections["References"])
    if cls.card.family is not Family.WRAPPER:
        assert "When to use" in cls.__doc__
        assert "When it fails" in cls.__doc__


def test_the_docstring_holds_no_note_to_self(cls):
    assert not re.search(r"\b(MEASURED|TODO|TBD|FIXME|XXX|HACK)\b", cls.__doc__)


def test_the_documented_parameters_are_the_fields(cls):
    text = _sections(cls).get("Parameters", "")
    documented = [
        name.strip()
        for line in text.splitlines()
        if (match := re.match(r"^    (\w+(?:, \w+)*) : ", line))
        for name in match[1].split(",")
    ]
    # A base of several methods may document what they share.
    shared = {f.name for base in cls.__mro__[1:] if dataclasses.is_dataclass(base) for f in dataclasses.fields(base)}
    assert set(_own_fields(cls)) - shared <= set(documented) <= set(_own_fields(cls))
    assert len(set(documented)) == len(documented)


def test_wrong_words_in_a_docstring_example_would_show(cls):
    """The examples print something, so that running them can fail."""
    examples = _sections(cls)["Examples"]
    printed = [line for line in examples.splitlines() if line.strip() and not line.strip().startswith((">>>", "..."))]
    assert printed


def test_a_verbose_fit_draws_on_standard_error_only(first_case, capsys):
    detector = first_case.make(Training(updates=2), verbose=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GenadWarning)
        detector.fit(first_case.wrap(first_case.normal()))
    assert capsys.readouterr().out == ""
    quiet = first_case.make(Training(updates=2))
    first_case.fit(quiet, first_case.normal())
    assert capsys.readouterr() == ("", "")
