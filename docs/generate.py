"""Write the parts of the documentation that follow from the code and the benchmark results.

``python docs/generate.py`` writes a page for each registered method and the benchmark page under
``docs/generated`` (not kept in git), and brings the marked sections of ``README.md`` up to date.
The same file is a hook of MkDocs: it adds the pages to the navigation, and takes the roles out of
docstrings.

A benchmark leaves ``benchmarks/results/NAME.json``; every key but ``rows`` may be missing::

    {"title": "...", "command": "...", "data": "...", "machine": "...", "notes": ["..."],
     "readme": true, "rows": [{"column": value, ...}, ...]}

``readme`` says whether the README shows it; without it a table of up to 16 rows is shown.
"""

from __future__ import annotations

import html
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
GENERATED = ROOT / "docs" / "generated"
RESULTS = ROOT / "benchmarks" / "results"
# A longer table belongs on the benchmark page, unless its file says otherwise.
_README_ROWS = 17
_ROLE = re.compile(r":(?:class|func|meth|attr|mod|data|exc):<code>(~?)([\w.]+)</code>")


# ---------------------------------------------------------------------- tables


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """Return rows as a Markdown table with the columns of all rows, in order of first use."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    numeric = [all(_is_number(row.get(name)) for row in rows) for name in names]
    lines = [
        "| " + " | ".join(_cell(name) for name in names) + " |",
        "|" + "|".join("---:" if right else "---" for right in numeric) + "|",
    ]
    lines += ["| " + " | ".join(_cell(row.get(name, "")) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


# ---------------------------------------------------------------------- methods


def methods() -> dict[str, Any]:
    """Return the registered detector classes by name: the methods first, then the wrappers."""
    from genad.core.registry import Family, registered

    # A class that an example registered is no part of the library.
    classes = {name: c for name, c in registered().items() if c.__module__.startswith("genad.")}
    order = list(Family)
    return dict(sorted(classes.items(), key=lambda item: (order.index(item[1].card.family), item[0])))


def method_rows(link: str) -> list[dict[str, Any]]:
    """Return the table of methods; ``link`` is a page's address with ``{name}`` in it, or empty."""
    from genad.data.kinds import Kind

    rows = []
    for name, cls in methods().items():
        card = cls.card
        own = card.authors == "genad"
        rows.append(
            {
                "name": f"[`{name}`]({link.format(name=name)})" if link else f"`{name}`",
                "what it does": card.summary,
                "paper": "genad's own" if own else f"{card.title}, {card.venue}",
                "year": "" if own else str(card.year),
                "kinds": "all" if set(card.kinds) == set(Kind) else ", ".join(card.kinds),
                "family": card.family.value,
            }
        )
    return rows


def family_rows(cls: type) -> list[dict[str, Any]]:
    """Return the table of a method's parameters that its family tells of, in the words of ``genad info``."""
    from genad.cli.catalog import inherited_parameters

    return [
        {
            "parameter": f"`{entry['name']}`",
            "default": f"`{entry['default']}`",
            "meaning": html.escape(entry["help"], quote=False).replace("*", "\\*"),
        }
        for entry in inherited_parameters(cls)
    ]


def method_page(name: str, cls: type) -> str:
    """Return the page of one method: its card, and its docstring through mkdocstrings."""
    card: Any = cls.card  # type: ignore[attr-defined]
    facts = [
        f"**Family:** {card.family.value}",
        f"**Kinds:** {', '.join(card.kinds)}",
    ]
    if card.authors != "genad":
        facts.insert(0, f"**Paper:** {card.authors}: *{card.title}*, {card.venue} {card.year}")
    if card.tags:
        facts.append(f"**Search words:** {', '.join(card.tags)}")
    listing = "\n".join(f"- {fact}" for fact in facts)
    exported = hasattr(sys.modules["genad"], cls.__name__)
    make = f"genad.{cls.__name__}(...)" if exported else f'genad.create("{name}")'
    rows = family_rows(cls)
    shared = f"Beside its own parameters, below, it has its family's:\n\n{markdown_table(rows)}\n\n" if rows else ""
    return f"""---
title: {cls.__name__}
---

# {cls.__name__}

{card.summary}

{listing}

Make one with `{make}`. The parameters that every detector has (`backbone`, `training`,
`threshold`, `holdout`, `random_state`, `device`, `verbose`) and the methods of every detector are
described [once for all](../../api.md#genad.core.detector.Detector).

{shared}::: {cls.__module__}.{cls.__qualname__}
    options:
      show_root_heading: false
      show_root_toc_entry: false
      heading_level: 2
"""


# ---------------------------------------------------------------------- benchmarks


def benchmarks() -> list[dict[str, Any]]:
    """Return the results in the order of their file names; name and leave out unreadable files."""
    found = []
    for path in sorted(RESULTS.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            print(f"{path.name}: left out ({error})", file=sys.stderr)
            continue
        if not isinstance(content, dict):
            print(f"{path.name}: left out (no JSON object)", file=sys.stderr)
            continue
        rows = content.get("rows")
        rows = rows if isinstance(rows, list) else []
        content["rows"] = [row for row in rows if isinstance(row, dict)]
        content.setdefault("title", path.stem.replace("_", " "))
        found.append(content)
    return found


def benchmark_section(result: dict[str, Any], level: int) -> str:
    """Return one benchmark as Markdown."""
    parts = [f"{'#' * level} {result['title']}"]
    about = [str(result[key]).rstrip(".") for key in ("data", "machine") if result.get(key)]
    if about:
        text = ". ".join(line[:1].upper() + line[1:] for line in about)
        parts.append(f"{text}.")
    if result["rows"]:
        parts.append(markdown_table(result["rows"]))
    notes = result.get("notes") or []
    notes = [notes] if isinstance(notes, str) else notes
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    if result.get("command"):
        parts.append(f"```bash\n{result['command']}\n```")
    return "\n\n".join(parts)


def readme_benchmarks() -> str:
    """Return the benchmarks that the README shows."""
    results = benchmarks()
    shown = [r for r in results if r.get("readme", len(r["rows"]) <= _README_ROWS)]
    if not shown:
        return (
            "`make bench` measures genad and its peers in one run, and `python docs/generate.py` puts the figures here."
        )
    text = "\n\n".join(benchmark_section(r, 3) for r in shown)
    more = len(results) - len(shown)
    if more:
        text += f"\n\n{more} more are on the benchmark page of the documentation."
    return text


# ---------------------------------------------------------------------- writing


def fill(text: str, name: str, content: str) -> str:
    """Return ``text`` with ``content`` between the markers of a section.

    Raises
    ------
    ValueError
        When the markers are missing.
    """
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    if start not in text or end not in text:
        msg = f"README.md: the markers {start} and {end} are missing; put them back"
        raise ValueError(msg)
    before, rest = text.split(start, 1)
    return f"{before}{start}\n\n{content}\n\n{end}{rest.split(end, 1)[1]}"


def readme(text: str) -> str:
    """Return the README with its generated sections brought up to date."""
    text = fill(text, "methods", markdown_table(method_rows("")))
    return fill(text, "benchmarks", readme_benchmarks())


def _write(path: Path, text: str) -> None:
    # Unchanged files keep their date, so that ``mkdocs serve`` does not rebuild for ever.
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def write_pages() -> None:
    """Write the pages under ``docs/generated``, and remove those of methods that are gone."""
    folder = GENERATED / "methods"
    intro = (
        "---\nhide: [toc]\n---\n\n# Methods\n\n"
        "Each method is one file, and each meets the same contract. `genad list` prints this "
        "table, `genad info NAME` a method's page.\n\n"
    )
    pages = {folder / "index.md": intro + markdown_table(method_rows("{name}.md")) + "\n"}
    pages |= {folder / f"{name}.md": method_page(name, cls) for name, cls in methods().items()}
    results = benchmarks()
    body = "\n\n".join(benchmark_section(r, 2) for r in results)
    pages[GENERATED / "benchmarks.md"] = (
        "# Benchmarks\n\n"
        "`make bench` measures genad and its peers in one run on one machine; the command for each "
        "table stands below it.\n\n" + (body or "There are no results in `benchmarks/results` yet.") + "\n"
    )
    for path, text in pages.items():
        _write(path, text)
    for stale in set(folder.glob("*.md")) - set(pages):
        stale.unlink()


def main() -> None:
    """Write all generated pages and README sections."""
    import genad  # noqa: F401 - method_page looks at its names

    write_pages()
    path = ROOT / "README.md"
    _write(path, readme(path.read_text(encoding="utf-8")))


# ---------------------------------------------------------------------- MkDocs


def on_config(config: Any) -> Any:
    """Add the page of each method to the navigation."""
    folder = GENERATED / "methods"
    if not (folder / "index.md").exists():
        main()
    names = sorted(path.stem for path in folder.glob("*.md") if path.stem != "index")
    for entry in config["nav"]:
        if "Methods" in entry:
            entry["Methods"] = [
                "generated/methods/index.md",
                *(f"generated/methods/{name}.md" for name in names),
            ]
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Show the picture of a report where a page asks for it and there is one."""
    there = (ROOT / "docs" / "images" / "report.png").exists()
    return markdown.replace("<!-- report -->", "![A report](images/report.png)" if there else "")


def on_page_content(html_text: str, **_: Any) -> str:
    """Turn the roles of docstrings, such as ``:class:`~genad.Table```, into plain names."""

    def plain(match: re.Match[str]) -> str:
        name = match[2].rsplit(".", 1)[-1] if match[1] else match[2]
        return f"<code>{html.escape(name)}</code>"

    return _ROLE.sub(plain, html_text)


if __name__ == "__main__":
    main()
