"""Every link in a Markdown file leads somewhere, and the site leaves no page and no public name out."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest

import flow

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NOT_OURS = {"runs", "site", "dist", "shared"}
LINK = re.compile(
    r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)|^\[[^\]]+\]:\s+(\S+)|(?:href|src)=\"([^\"]+)\"", re.M
)
ENTRY = re.compile(r"^::: (\S+)", re.M)


def pages() -> Iterator[Path]:
    for folder, names, files in os.walk(ROOT):
        names[:] = [name for name in names if name == ".github" or not (name[0] == "." or name in NOT_OURS)]
        yield from (Path(folder) / file for file in sorted(files) if file.endswith(".md"))


def prose(text: str) -> str:
    """Return a page without its code, which holds brackets of its own."""
    fenced = re.sub(r"^( *)(```+|~~~+).*?^ *\2 *$", "", text, flags=re.M | re.S)
    return re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", fenced)


def anchors(text: str) -> set[str]:
    """Return what links to a page may name behind ``#``: its headings as GitHub spells them, and API entries."""
    found: dict[str, int] = {}
    names = set(ENTRY.findall(text)) | set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))
    for heading in re.findall(
        r"^#{1,6} +(.+?) *#*$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M
    ):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        names.add(f"{slug}-{found[slug]}" if slug in found else slug)
        found[slug] = found.get(slug, 0) + 1
    return names


def leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = unquote(link).partition("#")
    target = (page.parent / path).resolve() if path else page
    if not (target.exists() and target.is_relative_to(ROOT)):
        return False
    return not (anchor and target.suffix == ".md") or anchor in anchors(target.read_text(encoding="utf-8"))


def broken(page: Path) -> list[str]:
    """Return the links of a page that lead nowhere inside the repository."""
    links = [next(filter(None, groups)) for groups in LINK.findall(prose(page.read_text(encoding="utf-8")))]
    inside = (link for link in links if not re.match(r"[a-z][a-z+.-]*:", link))
    return [link for link in inside if not leads_somewhere(page, link)]


@pytest.mark.parametrize("page", pages(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_links_that_lead_nowhere_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_docs_links.ROOT", tmp_path)
    (tmp_path / "b.md").write_text("# A `b`: 2 bits\n## A b 2 bits\n```\n# no heading\n```\n::: flow.run\n")
    good = [
        "b.md",
        "b.md#a-b-2-bits",
        "b.md#a-b-2-bits-1",
        "b.md#flow.run",
        "#here",
        "https://x.org/no.md",
        ".",
    ]
    bad = ["c.md", "b.md#a-b", "b.md#no-heading", "#there", "../x.md", "c.svg"]
    page = tmp_path / "a.md"
    text = [f"[x]({link})" for link in (*good, *bad[:-1])]
    page.write_text(
        "\n".join(["# Here", "`[x](code.md)`", "```", "[x](code.md)", "```", *text, f"![]({bad[-1]})"])
    )
    assert broken(page) == bad


def test_every_page_of_the_docs_is_in_the_sites_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1]
    listed = re.findall(r"[\w/-]+\.md", navigation)
    assert sorted(listed) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


@pytest.mark.parametrize(
    "page", sorted(DOCS.rglob("*.md")), ids=lambda path: path.relative_to(DOCS).as_posix()
)
def test_lists_are_spelled_so_that_github_and_the_site_agree(page: Path) -> None:
    """What belongs to an item is indented by four; a blank line goes between it and the next item."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    assert [len(indent) for indent in re.findall(r"\n\n( +)\S", text) if len(indent) % 4] == []
    assert re.findall(r"\n\n    \S.*(?:\n    \S.*)*\n((?:\d+\.|-) .*)", text) == []


def entries() -> list[str]:
    return [
        name
        for path in sorted(DOCS.rglob("*.md"))
        for name in ENTRY.findall(path.read_text(encoding="utf-8"))
    ]


def resolved(name: str) -> Any:
    """Return what a dotted name stands for: the name in the longest module that there is."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("name", entries())
def test_every_entry_of_the_api_pages_exists_and_has_a_docstring(name: str) -> None:
    assert name == "flow.types.Progress" or resolved(name).__doc__


def test_every_public_name_has_an_entry() -> None:
    values = [getattr(flow, name) for name in flow.__all__ if name != "__version__"]
    public = {getattr(value, "__wrapped__", value) for value in values}
    assert public - {resolved(name) for name in entries() if name != "flow.types.Progress"} == set()


def test_every_type_that_stages_exchange_has_an_entry() -> None:
    classes = re.findall(r"^class (\w+)", (ROOT / "flow" / "types.py").read_text(encoding="utf-8"), re.M)
    assert {f"flow.types.{name}" for name in classes} - set(entries()) == set()


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("fit.md", "../flow/rtl/README.md#x", "https://r/blob/main/flow/rtl/README.md#x"),
        ("fit.md", "../flow", "https://r/tree/main/flow"),
        ("algorithms/scales.md", "../../tests/README.md", "https://r/blob/main/tests/README.md"),
        ("algorithms/scales.md", "../fit.md#limits", "../fit.md#limits"),
        ("algorithms/README.md", "scales.md", "scales.md"),
    ],
)
def test_the_site_links_to_the_repository_what_is_not_in_the_docs(
    page: str, link: str, expected: str
) -> None:
    spec = spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = module_from_spec(spec)
    spec.loader.exec_module(hooks)
    config = SimpleNamespace(docs_dir=str(DOCS), extra={"repository": "https://r"})
    where = SimpleNamespace(file=SimpleNamespace(src_uri=page))
    assert hooks.on_page_markdown(f"a [b]({link}) c", page=where, config=config) == f"a [b]({expected}) c"
