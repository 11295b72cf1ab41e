"""What the pages of `compare` and `evaluate` share: one HTML file out of a template, a look and a script's data, which
needs nothing but itself."""

import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any


def build(package: str, parts: Mapping[str, str], data: Any = None) -> str:
    """The page whose body is page.html of `package`, in the common look and that of its own page.css.

    Args:
        parts: what stands for {{name}} in page.html, HTML already; `title` is needed.
        data: what page.js of `package` reads; a page without a script has none.
    """
    script = "" if data is None else (f'<script type="application/json" id="data">{embedded(data)}</script>\n'
                                      f"<script>\n{asset(package, 'page.js')}</script>")
    style = asset(__package__, "look.css") + asset(package, "page.css")
    return filled(asset(__package__, "shell.html"), {"title": parts["title"], "style": style, "script": script,
                                                     "body": filled(asset(package, "page.html"), parts)})


def filled(template: str, parts: Mapping[str, str]) -> str:
    """The template with its {{names}} replaced; what is put in is not looked at again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match.group(1)], template)


def embedded(data: Any) -> str:
    """JSON for a script element, which `</` would end."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")


def asset(package: str, name: str) -> str:
    """The text of a file that lies beside the modules of `package`."""
    return (files(package) / name).read_text(encoding="utf-8")
