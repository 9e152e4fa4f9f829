"""The catalog on its own: its packages are walked once, on first use, and its messages follow its noun."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from genad.core.catalog import Catalog
from genad.errors import InputError


@pytest.fixture
def catalog(tmp_path, monkeypatch):
    """A catalog of one package, whose modules enter classes in the catalog they find as ``shelf.catalog``."""
    package = tmp_path / "shelf"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("catalog = None\n")
    (package / "inner" / "__init__.py").write_text("")
    body = """
import shelf
@shelf.catalog.register("a card"{name})
class {cls}:
    def __init__(self, {parameter}=1): self.value = {parameter}
    @classmethod
    def _get_param_names(cls): return ["{parameter}"]
"""
    (package / "one.py").write_text(body.format(name="", cls="RedBook", parameter="pages"))
    (package / "inner" / "two.py").write_text(body.format(name=", 'atlas'", cls="Maps", parameter="scale"))
    monkeypatch.syspath_prepend(tmp_path)
    made = Catalog("book", ("shelf",))
    import shelf

    shelf.catalog = made
    yield made
    for name in [name for name in sys.modules if name.split(".")[0] == "shelf"]:
        del sys.modules[name]


def test_packages_are_walked_on_first_use_and_their_classes_sorted(catalog):
    assert "shelf.one" not in sys.modules
    assert list(catalog.classes()) == ["atlas", "red_book"]
    assert "shelf.inner.two" in sys.modules
    cls = catalog.classes()["red_book"]
    assert (cls.name, cls.card) == ("red_book", "a card")
    catalog.classes().clear()
    assert list(catalog.classes("red*")) == ["red_book"]


def test_finding_and_making(catalog):
    assert catalog.find("Red-Book").__name__ == "RedBook"
    assert catalog.make("atlas", {"scale": 3}).value == 3
    with pytest.raises(InputError, match=r"^name: there is no book called 'red_bok'; did you mean red_book\?$"):
        catalog.find("red_bok")
    with pytest.raises(InputError, match=r"^scal: Maps has no such parameter; it takes scale. Did you mean scale\?$"):
        catalog.make("atlas", {"scal": 3})


def test_other_spellings_and_other_names_are_found_when_they_stand_for_one(catalog):
    assert catalog.find("redbook").name == "red_book"
    assert catalog.find("RED book").name == "red_book"
    catalog.find("atlas").card = SimpleNamespace(aliases=("globe", "rare"))
    catalog.find("red_book").card = SimpleNamespace(aliases=("rare",))
    assert catalog.find("Globe").name == "atlas"
    with pytest.raises(InputError, match="no book called 'rare'"):
        catalog.find("rare")


def test_a_name_like_no_other_is_told_all_of_them_or_where_they_are(catalog):
    with pytest.raises(InputError, match=r"'zzzz'; use one of atlas, red_book\.$"):
        catalog.find("zzzz")
    catalog.listing = "the shelf"
    with pytest.raises(InputError, match=r"'zzzz'; see the shelf\.$"):
        catalog.find("zzzz")


def test_one_name_is_one_class(catalog):
    enter = catalog.register("card", "atlas")
    assert enter(catalog.find("atlas")).card == "card"
    with pytest.raises(RuntimeError, match="two books are registered as 'atlas'"):
        enter(type("Other", (), {}))
