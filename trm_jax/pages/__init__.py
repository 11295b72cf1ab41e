"""What the pages of `compare` and `evaluate` share: one HTML file out of a template, a look and a script's data, which
needs nothing but itself."""

import json
from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Any


def build(package: str, parts: Mapping[str, str], data: Any = None) -> str:
    """The page whose body is page.html of `package`, in the common look and that of its own page.css.

    Args:
        parts: what stands for $name in page.html, HTML already; `title` is needed.
        data: what page.js of `package` reads; a page without a script has none.
    """
    script = ""
    if data is not None:
        text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")  # which would end it
        script = (f'<script type="application/json" id="data">{text}</script>\n'
                  f"<script>\n{_asset(package, 'page.js')}</script>")
    return Template(_asset(__package__, "shell.html")).substitute(
        title=parts["title"], style=_asset(__package__, "look.css") + _asset(package, "page.css"),
        body=Template(_asset(package, "page.html")).substitute(parts), script=script)


def _asset(package: str, name: str) -> str:
    """The text of a file that lies beside the modules of `package`."""
    return (files(package) / name).read_text(encoding="utf-8")
