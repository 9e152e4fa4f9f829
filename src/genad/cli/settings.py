"""Turn ``--set name=value`` into checked parameters of a detector."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from typing import TYPE_CHECKING, Any

from genad.errors import GenadError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: Parameters that options of their own decide.
OWN_OPTIONS = {
    "random_state": "--seed",
    "device": "--device",
    "window": "--window",
    "verbose": "--quiet",
}


def parse_settings(assignments: Sequence[str]) -> dict[str, Any]:
    """Read assignments; values are JSON, or else text, and a dot makes a group.

    Parameters
    ----------
    assignments : sequence of str
        Each ``name=value`` or ``group.name=value``; of two for one name the later wins.

    Returns
    -------
    dict
        Values by name, groups as dictionaries.

    Raises
    ------
    InputError
        When there is no ``=``, no name, or a name is both a value and a group.

    Examples
    --------
    >>> parse_settings(["latent=4", "training.lr=1e-3", "backbone=gru"])
    {'latent': 4, 'training': {'lr': 0.001}, 'backbone': 'gru'}
    """
    found: dict[str, Any] = {}
    for text in assignments:
        path, equals, raw = text.partition("=")
        names = path.strip().replace("-", "_").split(".")
        if not equals or not all(names) or len(names) > 2:
            raise InputError(
                f"--set: {text!r} was given; write name=value, for instance latent=4 or training.epochs=50."
            )
        place = found
        if len(names) > 1:
            place = found.setdefault(names[0], {})
        if not isinstance(place, dict) or isinstance(place.get(names[-1]), dict):
            raise InputError(f"--set: {names[0]} was given both a value and parts; give one of them.")
        place[names[-1]] = _value(raw.strip())
    return found


def _value(raw: str) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw


def build_settings(given: Mapping[str, Any], classes: Sequence[type]) -> dict[str, Any]:
    """Check values against the parameters of detector classes and build their grouped ones.

    Parameters
    ----------
    given : mapping
        As :func:`parse_settings` returns it.
    classes : sequence of type
        Detector classes, the first that has a parameter decides about it.

    Returns
    -------
    dict
        Parameters for :func:`genad.create`.

    Raises
    ------
    InputError
        For a name that none of the classes has, or a value of the wrong type or range.

    Examples
    --------
    >>> from genad import Autoencoder
    >>> build_settings({"latent": 4, "training": {"epochs": 5}}, [Autoencoder])["latent"]
    4
    """
    accepted = {name: cls for cls in reversed(classes) for name in _names(cls)}
    groups = {"training": _training, "backbone": _backbone, "threshold": _threshold}
    built = {}
    for name, value in given.items():
        if name in OWN_OPTIONS:
            raise InputError(f"--set {name}: use {OWN_OPTIONS[name]} for it.")
        if name not in accepted:
            raise _unknown(name, accepted, classes[0].__name__)
        if name in groups and isinstance(value, dict):
            built[name] = groups[name](value)
        elif isinstance(value, dict):
            raise InputError(f"--set {name}.{next(iter(value))}: {name} has no parts; set {name}.")
        else:
            built[name] = _checked(name, value, accepted[name])
    return built


def _names(cls: type) -> list[str]:
    """Return the parameters that text can give: all but nested detectors."""
    hints = _hints(cls)
    names = cls._get_param_names()  # type: ignore[attr-defined]
    return [name for name in names if name not in OWN_OPTIONS and "Detector" not in str(hints.get(name, ""))]


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except NameError:
        # A name imported for type checkers only: the detector itself checks the values then.
        return {}


def _unknown(name: str, accepted: Iterable[str], owner: str) -> InputError:
    names = sorted(accepted)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return InputError(f"--set {name}: {owner} has no such parameter; it takes {', '.join(names)}.{hint}")


def _fields(group: str, values: Mapping[str, Any], cls: type) -> dict[str, Any]:
    names = [f.name for f in dataclasses.fields(cls)]
    for name in values:
        if name not in names:
            raise _unknown(f"{group}.{name}", [f"{group}.{n}" for n in names], cls.__name__)
    return {name: _checked(f"{group}.{name}", v, cls, name) for name, v in values.items()}


def _training(values: Mapping[str, Any]) -> Any:
    from genad.core.training import Training

    return Training(**_fields("training", values, Training))


def _backbone(values: Mapping[str, Any]) -> Any:
    from genad.nn import Backbone

    return Backbone(**_fields("backbone", values, Backbone))


def _threshold(values: Mapping[str, Any]) -> Any:
    from genad.core import calibration

    rules = ("Conformal", "Quantile", "PeaksOverThreshold", "FixedValue", "BestF", "Adaptive")
    rule = values.get("rule", "Conformal")
    if rule not in rules:
        raise InputError(f"--set threshold.rule: {rule!r} was given; use one of {', '.join(rules)}.")
    cls = getattr(calibration, rule)
    parts = {name: value for name, value in values.items() if name != "rule"}
    return cls(**_fields("threshold", parts, cls))


def _checked(shown: str, value: Any, cls: type, name: str | None = None) -> Any:
    """Return the value as the type that the class declares for the parameter."""
    from pydantic import TypeAdapter, ValidationError
    from pydantic.errors import PydanticSchemaGenerationError

    hint = _hints(cls).get(name or shown)
    if hint is None:
        return value
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(_settable(hint))
    except (PydanticSchemaGenerationError, GenadError):
        raise InputError(
            f"--set {shown}: {value!r} was given; it has parts, so set those: {shown}.PART=VALUE."
        ) from None
    try:
        return adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError:
        raise InputError(f"--set {shown}: {value!r} was given; accepted is {_words(hint)}.") from None


def _settable(hint: Any) -> Any:
    """Leave out of a union what text cannot give, such as a Backbone."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        if hint in _PLAIN or typing.get_origin(hint) in (list, tuple, typing.Literal, dict):
            return hint
        if getattr(hint, "__module__", "") == "pathlib":
            return hint
        raise GenadError("not plain")
    kept: list[Any] = []
    for part in typing.get_args(hint):
        try:
            kept.append(_settable(part))
        except GenadError:
            continue
    if not [part for part in kept if part is not type(None)]:
        raise GenadError("not plain")
    return typing.Union[tuple(kept)]  # noqa: UP007 - built at run time


_PLAIN = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
}


def _words(hint: Any) -> str:
    """Say in words what a type hint accepts.

    Examples
    --------
    >>> _words(int | None), _words(typing.Literal["a", "b"])
    ('a whole number or null', 'a or b')
    """
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(part) for part in typing.get_args(hint))
    if origin is typing.Literal:
        return " or ".join(str(value) for value in typing.get_args(hint))
    if origin in (list, tuple):
        return "a JSON list"
    return _PLAIN.get(hint, getattr(hint, "__name__", str(hint)))
