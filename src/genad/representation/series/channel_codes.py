"""The digit code of each channel of a series, learnt from normal data and kept as a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genad.core.parameters import check_whole
from genad.errors import InputError
from genad.representation.series.base import Track
from genad.representation.series.digits import DigitCode


def code_buffer(codes: Sequence[DigitCode]) -> Tensor:
    """Return offset, step and digits of codes as a tensor (C, 3) in double precision."""
    return torch.tensor([[code.offset, code.step, code.digits] for code in codes], dtype=torch.float64).reshape(-1, 3)


def code_of(buffer: Tensor, channel: int, *, padded: bool, spaced: bool) -> DigitCode:
    """Return the code of a channel from what :func:`code_buffer` made."""
    offset, step, digits = buffer[channel].tolist()
    return DigitCode(offset, step, int(digits), padded=padded, spaced=spaced)


def check_code(owner: Any) -> None:
    """Refuse ``digits`` and ``decimals`` of a detector that no code can have."""
    check_whole(owner, "digits")
    if owner.digits > 9:
        raise InputError(f"digits: {owner.digits!r} was given; use at most 9.")
    if owner.decimals is not None:
        check_whole(owner, "decimals", low=0)


def fit_codes(owner: Any, tracks: Sequence[Track]) -> list[DigitCode]:
    """Return the code of each channel from normal tracks."""
    channels = 1 + max(track.channel for track in tracks)
    return [
        DigitCode.fit(
            np.concatenate([track.values for track in tracks if track.channel == channel]),
            digits=owner.digits,
            decimals=owner.decimals,
        )
        for channel in range(channels)
    ]


def last_normal(codes: Sequence[DigitCode], tracks: Sequence[Track], length: int) -> Tensor:
    """Return the coded last ``length`` values of the last track of each channel, int64 (C, at most ``length``)."""
    last = {track.channel: track for track in tracks}
    return torch.from_numpy(np.stack([code.integers(last[c].values[-length:]) for c, code in enumerate(codes)]))
