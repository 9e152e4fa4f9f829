"""Batch and online false discovery rates: known answers, then the promise by simulation."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from genad.core.calibration import (
    ADDIS,
    LORD,
    SAFFRON,
    OnlineFDR,
    adjusted_p_values,
    benjamini_hochberg,
    benjamini_yekutieli,
    conformal_p_values,
)
from genad.errors import InputError, InputTypeError

QUICK = settings(deadline=None, max_examples=50, derandomize=True)
RULES = [LORD, SAFFRON, ADDIS]

# The stream of the documentation of the R package onlineFDR, with levels it computes.
STREAM = [2.9e-14, 0.00143, 0.06514, 0.00174, 0.00171, 3.61e-05, 0.79149, 0.27201]
STREAM += [0.28295, 7.59e-08, 0.69274, 0.30443, 0.000487, 0.72342, 0.54757]


@QUICK
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_adjusted_equals_scipy(p: list[float]) -> None:
    np.testing.assert_allclose(adjusted_p_values(p), false_discovery_control(p), rtol=1e-12)
    np.testing.assert_allclose(adjusted_p_values(p, "by"), false_discovery_control(p, method="by"), rtol=1e-12)


def _step_up(p: np.ndarray, q: float) -> np.ndarray:
    """Benjamini-Hochberg as the paper writes it."""
    m = p.size
    passing = np.flatnonzero(np.sort(p) <= q * np.arange(1, m + 1) / m * (1 + 1e-12))
    return p <= (np.sort(p)[passing[-1]] if passing.size else -1.0)


@QUICK
@given(st.lists(st.floats(0, 0.2), min_size=1, max_size=40), st.floats(0.01, 0.5))
def test_masks_equal_the_step_up_definition(p: list[float], q: float) -> None:
    values = np.array(p)
    np.testing.assert_array_equal(benjamini_hochberg(p, q), _step_up(values, q))
    harmonic = (1 / np.arange(1, len(p) + 1)).sum()
    np.testing.assert_array_equal(benjamini_yekutieli(p, q), _step_up(values, q / harmonic))


def test_exact_meeting_of_the_level_counts() -> None:
    assert benjamini_hochberg([0.1, 1.0, 1.0], 0.3).tolist() == [True, False, False]


def test_empty_batch() -> None:
    assert benjamini_hochberg([], 0.1).shape == (0,)


def test_bh_keeps_the_rate_with_conformal_p_values() -> None:
    # 400 batches: 90 normal and 10 anomalies shifted by 4, 1000 calibration scores.
    rng, q, fdp, power = np.random.default_rng(0), 0.2, [], []
    for _ in range(400):
        scores = rng.normal(size=100)
        scores[:10] += 4.0
        flagged = benjamini_hochberg(conformal_p_values(rng.normal(size=1000), scores), q)
        fdp.append(flagged[10:].sum() / max(1, flagged.sum()))
        power.append(flagged[:10].mean())
    assert np.mean(fdp) <= q + 3 * np.std(fdp) / 20
    assert np.mean(power) > 0.8


def test_lord_levels_known_answer() -> None:
    rule, levels, flags = LORD(alpha=0.05, wealth=0.025), [], []
    for p in STREAM:
        levels.append(rule.level)
        flags.append(rule.update(p))
    known = [0.001338, 0.001629, 0.003215, 0.001036, 0.000876, 0.000738, 0.003309, 0.001136]
    known += [0.000987, 0.000854, 0.003426, 0.001251, 0.0011, 0.003639, 0.001438]
    np.testing.assert_allclose(levels, known, atol=6e-7)
    assert np.flatnonzero(flags).tolist() == [0, 1, 5, 9, 12]
    assert (rule.n_tests, rule.n_discoveries) == (15, 5)


def test_saffron_levels_known_answer() -> None:
    rule, levels, flags = SAFFRON(alpha=0.05, wealth=0.0125, lambda_=0.5), [], []
    for p in STREAM:
        levels.append(rule.level)
        flags.append(rule.update(p))
    known = [0.005469, 0.010937, 0.021875, 0.021875, 0.032812, 0.043749, 0.054686, 0.01804]
    known += [0.01804, 0.01804, 0.028977, 0.013037, 0.013037, 0.023975, 0.011445]
    np.testing.assert_allclose(levels, known, atol=6e-7)
    assert np.flatnonzero(flags).tolist() == [0, 1, 3, 4, 5, 9, 12]


def test_addis_levels_known_answer() -> None:
    rule, levels = ADDIS(alpha=0.05, wealth=0.25 * 0.025, lambda_=0.25, tau=0.5), []
    for p in STREAM:
        levels.append(rule.level if p <= 0.5 else np.nan)
        rule.update(p)
    known = [0.002734, 0.005469, 0.010937, 0.010937, 0.016406, 0.021875, np.nan, 0.027343]
    known += [0.00902, 0.004715, np.nan, 0.010183, 0.004779, np.nan, np.nan]
    np.testing.assert_allclose(levels, known, atol=6e-7)


def _slow_lord(p: np.ndarray, alpha: float, w: float) -> list[float]:
    """LORD++ levels straight from the formula of Ramdas et al., one sum per step."""

    def g(j: int) -> float:
        return 0.07720838 * np.log(max(j, 2)) / (j * np.exp(np.sqrt(np.log(j))))

    found: list[int] = []
    levels = []
    for t, value in enumerate(p, start=1):
        level = w * g(t)
        for k, tau in enumerate(found):
            level += (alpha - w if k == 0 else alpha) * g(t - tau)
        levels.append(level)
        if value <= level:
            found.append(t)
    return levels


def test_lord_equals_the_formula_on_a_long_stream() -> None:
    rng = np.random.default_rng(4)
    p = rng.uniform(size=600) * np.where(rng.uniform(size=600) < 0.3, 1e-4, 1)
    rule, levels = LORD(alpha=0.1, wealth=0.03), []
    for value in p:
        levels.append(rule.level)
        rule.update(value)
    np.testing.assert_allclose(levels, _slow_lord(p, 0.1, 0.03), rtol=1e-12)


def test_addis_without_discarding_is_saffron() -> None:
    p = np.random.default_rng(5).uniform(size=3000) ** 3
    a, s = ADDIS(alpha=0.1, lambda_=0.4, tau=1.0), SAFFRON(alpha=0.1, lambda_=0.4)
    np.testing.assert_array_equal(a.run(p), s.run(p))
    assert a.level == pytest.approx(s.level, rel=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_rate_and_power_by_simulation(rule) -> None:
    # 200 streams of 500 tests, a tenth anomalies with very small p-values.
    rng, q, fdp, power = np.random.default_rng(6), 0.1, [], []
    for _ in range(200):
        anomaly = rng.uniform(size=500) < 0.1
        p = np.where(anomaly, rng.uniform(size=500) ** 6 * 1e-3, rng.uniform(size=500))
        flagged = rule(alpha=q).run(p)
        fdp.append((flagged & ~anomaly).sum() / max(1, flagged.sum()))
        power.append(flagged[anomaly].mean())
    assert np.mean(fdp) <= q + 3 * np.std(fdp) / np.sqrt(200)
    assert np.mean(power) > 0.7


@pytest.mark.parametrize("rule", RULES)
def test_null_streams(rule) -> None:
    # Without anomalies the rate is the chance of any flag: at most q, here 0.2 of 500 streams.
    rng = np.random.default_rng(7)
    any_flag = np.mean([rule(alpha=0.2).run(rng.uniform(size=300)).any() for _ in range(500)])
    assert 0.01 < any_flag <= 0.2 + 3 * np.sqrt(0.2 * 0.8 / 500)


def test_addis_gains_where_nulls_are_conservative() -> None:
    rng, power = np.random.default_rng(8), {SAFFRON: [], ADDIS: []}
    for _ in range(60):
        anomaly = rng.uniform(size=1000) < 0.05
        null = 1 - rng.uniform(size=1000) ** 4
        p = np.where(anomaly, rng.uniform(size=1000) * 2e-3, null)
        for rule, got in power.items():
            got.append(rule(alpha=0.1).run(p)[anomaly].mean())
    assert np.mean(power[ADDIS]) > np.mean(power[SAFFRON]) + 0.05


@pytest.mark.parametrize("rule", RULES)
def test_json_goes_on_with_the_same_decisions(rule) -> None:
    p = np.random.default_rng(9).uniform(size=2000) ** 4
    whole = rule(alpha=0.1)
    expected = whole.run(p)
    half = rule(alpha=0.1)
    head = half.run(p[:1000])
    again = OnlineFDR.from_dict(json.loads(json.dumps(half.to_dict(), allow_nan=False)))
    assert type(again) is rule
    np.testing.assert_array_equal(np.concatenate([head, again.run(p[1000:])]), expected)
    assert again.level == whole.level
    assert again == whole
    fresh = rule.from_dict(json.loads(json.dumps(rule().to_dict())))
    assert fresh.level == rule().level


@pytest.mark.parametrize("rule", RULES)
def test_a_long_stream_keeps_its_power(rule) -> None:
    p = np.random.default_rng(10).uniform(size=20_000)
    p[::10] *= 1e-6
    stream = rule(alpha=0.1)
    assert stream.run(p).sum() > 1800
    assert stream.n_tests == 20_000


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: benjamini_hochberg([0.1], 1.0), r"q must lie in \(0, 1\), found 1"),
        (lambda: benjamini_yekutieli([0.1], 0.0), r"q must lie in \(0, 1\), found 0"),
        (lambda: benjamini_hochberg([0.1, 1.5]), r"p-values in \[0, 1\], found 1.5 at position 1"),
        (lambda: adjusted_p_values([np.nan]), "NaN"),
        (lambda: adjusted_p_values([0.1], "holm"), "'bh' or 'by', found 'holm'"),
        (lambda: LORD(alpha=0.0), "alpha must lie in"),
        (lambda: LORD(alpha=0.1, wealth=0.2), r"wealth must lie in \(0, 0.1\], found 0.2"),
        (lambda: SAFFRON(lambda_=1.0), "lambda_ must lie in"),
        (lambda: ADDIS(lambda_=0.6, tau=0.5), r"lambda_ must lie in \(0, 0.5\), found 0.6"),
        (lambda: ADDIS(tau=1.5), "tau must lie in"),
        (lambda: LORD().update(float("nan")), "found nan"),
        (lambda: LORD().update(-0.1), r"p must lie in \[0, 1\], found -0.1"),
        (lambda: LORD().run([0.1, 2.0]), "found 2 at position 1"),
        (lambda: LORD.from_dict(ADDIS().to_dict()), "must be one of LORD, found 'ADDIS'"),
        (lambda: OnlineFDR.from_dict({"rule": "X"}), "ADDIS, LORD, SAFFRON, found 'X'"),
        (lambda: OnlineFDR.from_dict({}), "'rule' must be the name of a rule"),
        (lambda: LORD.from_dict({"rule": "LORD", "parameters": {}}), "state is broken"),
        (
            lambda: LORD.from_dict({**LORD().to_dict(), "state": {**LORD().to_dict()["state"], "first": 9}}),
            "ticks lie in 0",
        ),
    ],
)
def test_bad_values_are_named(call, match) -> None:
    with pytest.raises(InputError, match=match):
        call()


def test_bad_types_are_named() -> None:
    with pytest.raises(InputTypeError, match="p must be a number"):
        LORD().update("0.1")  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="read from a dict, found list"):
        OnlineFDR.from_dict([])  # type: ignore[arg-type]
