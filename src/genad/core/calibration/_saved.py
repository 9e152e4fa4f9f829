"""Rules that are kept as plain values: each family knows its rules by name, and rebuilds one from its name."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

from genad.core.calibration._checks import check_state
from genad.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping


class NamedRule:
    """Base of a family of rules: a class that sets ``_what`` starts a family, and its subclasses belong to it.

    Attributes
    ----------
    _what : str
        What a rule of the family is, for messages, for instance ``"a stream rule"``.
    """

    _what: ClassVar[str]
    _rules: ClassVar[dict[str, Any]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "_what" in vars(cls):
            cls._rules = {}
        elif hasattr(cls, "_what"):
            cls._rules[cls.__name__] = cls

    @classmethod
    def _class_of(cls, data: Mapping[str, Any]) -> type[Self]:
        """Return the class that saved values name, which is this one or a subclass of it.

        Raises
        ------
        InputTypeError
            If `data` is not a mapping.
        InputError
            If it names no rule, or one of another class.
        """
        name = check_state(cls._what, data)["rule"]
        kind: type[Self] | None = cls._rules.get(name)
        if kind is None or not issubclass(kind, cls):
            accepted = ", ".join(sorted(n for n, k in cls._rules.items() if issubclass(k, cls)))
            raise InputError(f"{cls._what}: 'rule' must be one of {accepted}, found {name!r}.")
        return kind


class MovingRule(NamedRule):
    """Base of the rules that change with every value they judge; their state is saved beside their parameters."""

    def _state(self) -> dict[str, Any]:
        """Return the state as plain values."""
        raise NotImplementedError

    def restore_state(self, state: Mapping[str, Any]) -> None:
        """Take over the state that :meth:`to_dict` wrote."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return parameters and state as plain values that JSON keeps exactly."""
        parameters = {f.name: getattr(self, f.name) for f in fields(self) if f.init}  # type: ignore[arg-type]
        return {"rule": type(self).__name__, "parameters": parameters, "state": self._state()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild a rule that takes the same decisions from here on.

        Parameters
        ----------
        data
            What :meth:`to_dict` returned. On the base class of a family any of its rules is accepted.

        Returns
        -------
        Self
            The rule.

        Raises
        ------
        InputError
            If `data` is of another rule, or a part is missing or out of range.
        """
        kind = cls._class_of(data)
        try:
            made = kind(**data["parameters"])
            made.restore_state(data["state"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{data['rule']}: the saved state is broken ({error}).") from error
        return made
