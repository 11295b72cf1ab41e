"""What a run's configuration is read from: our config.json, the PyTorch project's file, or the text in the events."""

import json
from pathlib import Path
from typing import Any

from trm_jax.comparison.record import torch_config
from trm_jax.comparison.record.events import Events

CONFIG_FILE = "config.json"
CONFIG_TEXT = "config"  # tag of the text that holds the configuration


def load_config(path: Path, events: Events, notes: list[str]) -> dict[str, Any]:
    """The configuration beside the events or, in a folder without it, inside them; {} for none.

    What is there and cannot be read goes to `notes`.
    """
    file, torch_file = path / CONFIG_FILE, path / torch_config.FILE
    if file.is_file():
        return _from_json(file.read_text(encoding="utf-8"), CONFIG_FILE, notes)
    if torch_file.is_file():
        return _from_yaml(torch_file, notes)
    if CONFIG_TEXT in events.texts:
        return _from_json(events.texts[CONFIG_TEXT].content, f"text tag {CONFIG_TEXT!r}", notes)
    return {}


def _from_json(text: str, source: str, notes: list[str]) -> dict[str, Any]:
    """TensorBoard shows texts as Markdown, so that the JSON may stand in a code block."""
    try:
        config = json.loads(text[text.find("{") : text.rfind("}") + 1])
        config.pop("format", None)  # of the file; says nothing of the run
        return config
    except json.JSONDecodeError as error:
        notes.append(f"{source}: not the JSON of a configuration ({error}); the run is read as having none")
        return {}


def _from_yaml(file: Path, notes: list[str]) -> dict[str, Any]:
    """The PyTorch project's file; what reads it comes with the extra [convert] only."""
    try:
        import yaml
    except ImportError:
        notes.append(f"{file.name}: not read, for want of pyyaml; the run is read as having no configuration")
        return {}
    try:
        theirs = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        theirs = " ".join(str(error).split())
    if not isinstance(theirs, dict):
        notes.append(f"{file.name}: not the YAML of a configuration ({theirs}); the run is read as having none")
        return {}
    return torch_config.named_as_ours(theirs)
