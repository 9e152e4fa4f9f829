"""Defective images out of a folder of normal ones."""

from __future__ import annotations

import pytest

from genad.applications.synthesis import synthesize_folder
from genad.errors import InputError


@pytest.mark.parametrize(("method", "of"), [("series_taxonomy", "series"), ("tabular_anomalies", "rows")])
def test_what_makes_other_anomalies_is_refused_before_anything_is_read(tmp_path, method, of):
    with pytest.raises(InputError, match=f"method: .* makes anomalies of {of}, not of images; use one of .*cut_paste"):
        synthesize_folder(tmp_path / "missing", method=method, n=1, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
