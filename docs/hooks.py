"""Hooks of the docs' site: what GitHub does with these pages, and MkDocs does not."""

import posixpath
import re
from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """Name headings as GitHub does, so that one link to a heading works in both places."""
    from pymdownx.slugs import slugify  # of the docs' extra, which the tests of these hooks do without

    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")
    return config


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Turn links that leave the docs' folder into links to the repository."""
    root = Path(config.docs_dir).parent
    folder = posixpath.dirname(f"{Path(config.docs_dir).name}/{page.file.src_uri}")

    def outside(match: re.Match[str]) -> str:
        path, mark, anchor = match[1].partition("#")
        target = posixpath.normpath(posixpath.join(folder, path))
        if target.startswith(f"{Path(config.docs_dir).name}/"):
            return match[0]
        kind = "tree" if (root / target).is_dir() else "blob"
        return f"]({config.extra['repository']}/{kind}/main/{target}{mark}{anchor})"

    return re.sub(r"\]\((\.\./[^)\s]+)\)", outside, markdown)
