"""What a run's configuration is read from: our config.json, or the text in its events."""

import json
from pathlib import Path
from typing import Any

from trm_jax.comparison.events import Events

CONFIG_FILE = "config.json"
CONFIG_TEXT = "config"  # tag of the text that holds the configuration


def load_config(path: Path, events: Events, notes: list[str]) -> dict[str, Any]:
    """The configuration beside the events or, in a folder without it, inside them; {} for none.

    What is there and cannot be read goes to `notes`.
    """
    file = path / CONFIG_FILE
    if file.is_file():
        return _from_json(file.read_text(encoding="utf-8"), CONFIG_FILE, notes)
    if CONFIG_TEXT in events.texts:
        return _from_json(events.texts[CONFIG_TEXT].content, f"text tag {CONFIG_TEXT!r}", notes)
    return {}


def _from_json(text: str, source: str, notes: list[str]) -> dict[str, Any]:
    """TensorBoard shows texts as Markdown, so that the JSON may stand in a code block."""
    try:
        return json.loads(text[text.find("{") : text.rfind("}") + 1])
    except json.JSONDecodeError as error:
        notes.append(f"{source}: not the JSON of a configuration ({error}); the run is read as having none")
        return {}
