"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Let one worker run what shares its fixtures: the tests of a file, and in the contract those of a detector."""
    from xdist.scheduler import LoadScopeScheduling

    class BySharedFixtures(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            found = re.match(r"tests/contract/[^\[]*\[(\w+)", nodeid)
            return f"contract of {found[1]}" if found else nodeid.partition("::")[0]

    return BySharedFixtures(config, log)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small networks run fastest on one thread, and test workers share the cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the evaluation data: GENAD_DATA, or ../shared/data beside the project."""
    folder = Path(os.environ.get("GENAD_DATA", ROOT.parent / "shared" / "data"))
    if folder.is_dir():
        return folder
    message = f"the evaluation data are not in {folder}; set GENAD_DATA to their folder"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def one_class(data_dir):
    """Return a function that splits an ADBench table: train on half of the normals, test on the rest."""

    def split(name: str, seed: int = 0):
        with np.load(data_dir / "tabular" / f"adbench_{name}.npz", allow_pickle=False) as file:
            X, y = file["X"].astype(np.float32), file["y"].astype(int).ravel()
        rng = np.random.default_rng(seed)
        normal = rng.permutation(np.flatnonzero(y == 0))
        half = len(normal) // 2
        test = np.r_[normal[half:], np.flatnonzero(y == 1)]
        return X[normal[:half]], X[test], y[test]

    return split
