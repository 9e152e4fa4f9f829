"""One exception family: every message names the argument, what was found, what is accepted and the mend."""

from __future__ import annotations


class GenadError(Exception):
    """Base of every error genad raises on purpose."""


class InputError(GenadError, ValueError):
    """The data or an argument cannot be used: its message says what was found and how to mend it."""


class InputTypeError(GenadError, TypeError):
    """The data or an argument has a type that is not accepted."""


class TrainingError(GenadError, RuntimeError):
    """Training could not go on, for instance because the loss stopped being finite."""


class ModelFileError(GenadError, ValueError):
    """A model file is corrupt, truncated, newer than this version, or not a genad file at all."""


class ServiceError(GenadError, RuntimeError):
    """A service, such as a language model or a vector store, cannot be reached or refuses to work."""


class MissingExtraError(GenadError, ImportError):
    """An optional dependency is not installed; the message gives the command that installs it."""


class GenadWarning(UserWarning):
    """Base of every warning genad gives."""


class CalibrationWarning(GenadWarning):
    """The promise of a threshold is weaker than asked for, and the message says what is attainable."""


class DataWarning(GenadWarning):
    """The data hold something worth knowing: gaps, constant columns, missing cells, unusable columns."""


class MetricWarning(GenadWarning):
    """A metric is known to mislead, and the message says how."""
