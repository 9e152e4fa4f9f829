"""A scripted stand-in for the small local model, so that detectors that ask one run the whole suite in seconds.

It reads numbers written in two or three digits: those far from the middle surprise it, and windows that hold some are
called anomalous. Of log lines it knows one alarming word, and a number of its own for every other text. It judges form
alone, which is all that the suite asks of a detector.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from typing import Any

from genad.foundation.scripted import Scripted

# Codes run from 0 to 99 or to 999; normal ones lie around the middle with this share of the range as their deviation.
_DEVIATION = 0.13


def _share(value: float, digits: int) -> float:
    """Return the share of normal numbers below ``value``, of so many digits."""
    top = 10**digits
    return 0.5 * (1 + math.erf((value - 0.4995 * top) / (_DEVIATION * top) / math.sqrt(2)))


def surprise(before: str, token: str, digits: int = 2) -> float:
    """Return the log-probability of a character of a number, or of what separates numbers, in nats."""
    written = re.search(r"\d*$", before)[0]
    if not token.isdigit():
        return -0.01 if len(written) == digits else -12.0

    def mass(prefix: str) -> float:
        if len(prefix) > digits:
            return 1e-12
        low = int(prefix.ljust(digits, "0") or 0)
        return _share(low + 10 ** (digits - len(prefix)), digits) - _share(low, digits) + 1e-12

    return math.log(mass(written + token) / max(mass(written), 1e-11))


def _block(text: str, name: str) -> str:
    return text.split(f"<<<{name}\n")[1].split(f"\n{name}>>>", maxsplit=1)[0]


def _verdict(text: str) -> str:
    """Judge a window against the normal segment that stands in the prompt."""
    values = [int(line.split()[1]) for line in _block(text, "window").splitlines()]
    normal = [int(v) for v in text.split("A normal segment of this series:\n")[1].split("\n", maxsplit=1)[0].split(",")]
    low, high = min(normal), max(normal)
    room = 0.2 * max(high - low, 1)
    bad = [i for i, v in enumerate(values, 1) if not low - room <= v <= high + room]
    level = "Urgent" if bad else "Warning"
    mean = sum(values) / len(values)
    return json.dumps(
        {
            "briefExplanation": {"step1_global": "a", "step2_local": "b", "step3_reassess": "c"},
            "is_anomaly": True,
            "anomalies": bad or [max(range(len(values)), key=lambda i: abs(values[i] - mean)) + 1],
            "anomaly_type": "SingleSpike",
            "alarm_level": level,
            "reason_for_anomaly_type": "far off",
            "reason_for_alarm_level": "",
        }
    )


def answer(messages: list[dict[str, Any]]) -> str:
    """Answer the prompts of the detectors of series."""
    text = messages[-1]["content"]
    if "<<<window" in text:
        return _verdict(text)
    if "Write the next" in text:
        return _block(text, "sequence").split(",")[-2] + ","
    values = [int(v) for v in _block(text, "sequence").split(",")]
    far = [v for v in values if not 150 <= v <= 850]
    return str(far or [max(values, key=lambda v: abs(v - 500))])


def word(prompt: str, candidate: str) -> float:
    """Return the log-probability of the word of a verdict on the text in a prompt, in nats."""
    opinion = zlib.crc32(prompt.encode()) / 2**32 + 4.0 * ("fatal" in prompt)
    return opinion if candidate in (" abnormal", " 1") else 0.0


MODEL = Scripted(answer, log_prob=surprise, next_token=word)
