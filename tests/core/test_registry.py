"""The registry: names, listings, creation and its messages."""

from __future__ import annotations

import pytest

from genad.core.registry import (
    Card,
    Family,
    create,
    detector_class,
    list_detectors,
    register,
    registered,
    snake_case,
)
from genad.data.kinds import Kind
from genad.errors import InputError, InputTypeError


@pytest.mark.parametrize(("name", "expected"), [
    ("MemAE", "mem_ae"), ("OmniAnomaly", "omni_anomaly"), ("DAGMM", "dagmm"), ("VAE", "vae"),
    ("GANomaly", "ga_nomaly"), ("Autoencoder", "autoencoder"), ("UNet2d", "u_net2d"),
])  # fmt: skip
def test_snake_case(name, expected):
    assert snake_case(name) == expected


def test_registered_is_sorted_and_complete():
    classes = registered()
    assert list(classes) == sorted(classes)
    assert {"autoencoder", "ensemble", "grouped", "windowed"} <= set(classes)
    assert all(cls.name == name for name, cls in classes.items())


def test_changing_the_answer_does_not_change_the_registry():
    registered().clear()
    assert registered()


def test_one_name_is_one_class():
    card = Card(title="t", authors="a", venue="v", year=2000, family=Family.VAE, kinds=(Kind.TABLE,))

    class Other:
        pass

    with pytest.raises(RuntimeError, match="two detectors are registered as 'autoencoder'"):
        register(card, name="autoencoder")(Other)
    assert detector_class("autoencoder").__name__ == "Autoencoder"
    assert not hasattr(Other, "card")


def test_names_take_hyphens_and_capitals():
    assert detector_class("Denoising-Autoencoder") is detector_class("denoising_autoencoder")


@pytest.mark.parametrize(("name", "hint"), [
    ("autoencodr", "did you mean autoencoder"), ("zzzz", "list_detectors"), ("", "list_detectors"),
])  # fmt: skip
def test_an_unknown_name_lists_the_nearest(name, hint):
    with pytest.raises(InputError, match=hint):
        create(name)


def test_a_name_that_is_no_text_is_refused():
    with pytest.raises(InputTypeError, match="name: 5 was given; use the name of a detector"):
        create(5)


def test_an_unknown_parameter_lists_what_there_is():
    with pytest.raises(InputError, match=r"latnt: Autoencoder has no such parameter.*Did you mean latent"):
        create("autoencoder", latnt=3)


def test_create_passes_parameters_on():
    detector = create("autoencoder", latent=3, random_state=7)
    assert (detector.latent, detector.random_state) == (3, 7)


def test_listing_by_pattern_kind_and_family():
    assert list_detectors() == list(registered())
    assert list_detectors("*autoencoder") == [n for n in registered() if n.endswith("autoencoder")]
    assert list_detectors("nothing*") == []
    assert "windowed" not in list_detectors(kind="table")
    assert "windowed" in list_detectors(kind=Kind.SERIES)
    # A detector of windows becomes one of series by Windowed.
    assert "autoencoder" in list_detectors(kind="series")
    wrappers = list_detectors(family="wrapper")
    assert {"ensemble", "grouped", "windowed"} <= set(wrappers)
    assert "autoencoder" not in wrappers
    assert set(list_detectors("w*", family=Family.WRAPPER)) == {n for n in wrappers if n.startswith("w")}


@pytest.mark.parametrize(("argument", "value"), [("kind", "spreadsheet"), ("family", "tree")])
def test_unknown_kinds_and_families_are_named(argument, value):
    with pytest.raises(InputError, match=f"^{argument}: '{value}' is not known; use one of"):
        list_detectors(**{argument: value})
