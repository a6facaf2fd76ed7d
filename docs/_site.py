"""For the site (mkdocs.yml): pages from the notebook and documents beside docs/, and links that lead out of docs/."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "LOG.md": "log.md"}
"""Documents of the checkout that are pages of the site."""

NOTEBOOK = "notebook.ipynb"
"""It lies on the site as it is, too."""

LINK = re.compile(r"\[([^\]]*)\]\(((?:\.\./)*)([^)#:]+)(#[^)]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text()))
    tour = as_markdown(json.loads((ROOT / "docs" / NOTEBOOK).read_text()))
    files.append(File.generated(config, NOTEBOOK.replace(".ipynb", ".md"), content=tour))
    return files


def as_markdown(notebook: Any) -> str:
    """A notebook with the outputs that it holds: text, PNG and SVG."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        parts += map(_shown, cell.get("outputs", []))
    said = f"[The notebook]({NOTEBOOK}) of this page can be run."
    return "\n\n".join([*parts, said]) + "\n"


def _shown(output: Any) -> str:
    if output["output_type"] == "stream":
        return f"```\n{''.join(output['text']).rstrip()}\n```"
    data = {kind: "".join(content) for kind, content in output["data"].items()}
    if "image/svg+xml" in data:
        return f"![](data:image/svg+xml;base64,{base64.b64encode(data['image/svg+xml'].encode()).decode()})"
    if "image/png" in data:
        return f"![](data:image/png;base64,{data['image/png'].replace(chr(10), '')})"
    return f"```\n{data['text/plain']}\n```"


def on_page_markdown(markdown: str, page: Any, **rest: Any) -> str:
    """Links as the site has them: to its pages; what is not on it is named, and no link."""
    uri = Path(page.file.src_uri)
    outside = str(uri) in PAGES.values()
    depth = len(uri.parts) - 1

    def link(match: re.Match[str]) -> str:
        text, up, path, anchor = match[1], match[2].count("/"), match[3], match[4] or ""
        if outside and path.startswith("docs/") and path.endswith(".md"):
            return f"[{text}]({path.removeprefix('docs/')}{anchor})"
        if path == NOTEBOOK and uri.name != "notebook.md":
            return f"[{text}](notebook.md{anchor})"
        if not outside and up <= depth:
            return match[0]
        if path in PAGES:
            return f"[{text}]({'../' * depth}{PAGES[path]}{anchor})"
        return text

    return LINK.sub(link, markdown)
