"""For the site (mkdocs.yml): pages from the documents beside docs/, and links that lead out of docs/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "LOG.md": "log.md"}
"""Documents of the checkout that are pages of the site."""

LINK = re.compile(r"\[([^\]]*)\]\(((?:\.\./)*)([^)#:]+)(#[^)]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, **rest: Any) -> str:
    """Links as the site has them: to its pages; what is not on it is named, and no link."""
    uri = Path(page.file.src_uri)
    outside = str(uri) in PAGES.values()
    depth = len(uri.parts) - 1

    def link(match: re.Match[str]) -> str:
        text, up, path, anchor = match[1], match[2].count("/"), match[3], match[4] or ""
        if outside and path.startswith("docs/") and path.endswith(".md"):
            return f"[{text}]({path.removeprefix('docs/')}{anchor})"
        if not outside and up <= depth:
            return match[0]
        if path in PAGES:
            return f"[{text}]({'../' * depth}{PAGES[path]}{anchor})"
        return text

    return LINK.sub(link, markdown)
