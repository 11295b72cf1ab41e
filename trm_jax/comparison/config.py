"""What is recorded of a run beside its curves: its configuration, and what it was started as."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from trm_jax.comparison.events import RunError, Text

CONFIG_FILE, RECORD_FILE, TORCH_FILE = "config.json", "run.json", "all_config.yaml"
CONFIG_TEXT = "config"  # tag of the text that holds the configuration
MODES = {"o": "original", "r": "original", "l": "online"}  # by the letter of the plan's series; the E series takes both
PRESETS = ("o1", "o2", "o3", "r1", "l1", "l2", "l3", "e1", "e2", "e3")  # of the plan
TORCH_FIELDS = {  # of the PyTorch project → section of ours; all others are in the section `torch`
    "global_batch_size": "data", "max_train_groups": "data", "max_eval_groups": "data", "epochs": "train",
    "seed": "train", "load_pretrained_decoder": "train", "lr_min_ratio": "optim", "num_act_steps": "mode",
    "halt_max_steps": "arch", "halt_exploration_prob": "arch"}
TORCH_NO_SETTINGS = ("arch", "run_name", "project_name", "checkpoint_path")
Config = Mapping[str, Mapping[str, Any]]  # section → field → value


@dataclass(frozen=True)
class Identity:
    """Which run of the plan it is."""

    preset: str = ""  # "" where it is none
    size: str = ""  # what stands behind the preset's colon
    overrides: Mapping[str, Any] = field(default_factory=dict)  # "section.field" → value
    mode: str = "original"  # or "online"
    is_recorded: bool = True  # in run.json; else it goes by configuration and name
    train_tasks: int = 0  # that it was trained on, 0 where not recorded
    eval_tasks: int = 0  # that it was evaluated on while it trained
    protocol: str = ""  # the word of the scores that it logs
    digest: str = ""  # of the tasks that it is trained on


def load_config(path: Path, texts: Mapping[str, Text], notes: list[str]) -> Config:
    """The configuration beside the events or, in a folder without it, inside them; {} for none.

    What is there and cannot be read goes to `notes`.
    """
    try:
        if (path / CONFIG_FILE).is_file():
            found = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
        elif (path / TORCH_FILE).is_file():
            found = _named_as_ours(yaml.safe_load((path / TORCH_FILE).read_text(encoding="utf-8")))
        else:  # TensorBoard shows texts as Markdown: the JSON may stand in a code block
            text = texts.get(CONFIG_TEXT, (0, "{}"))[1]
            found = json.loads(text[text.find("{"):text.rfind("}") + 1])
        return {section: values for section, values in found.items() if isinstance(values, dict)}
    except (ValueError, AttributeError, TypeError, yaml.YAMLError) as error:
        notes.append(f"a configuration that cannot be read ({' '.join(str(error).split())}) is taken for none")
        return {}


def identify(path: Path, label: str, config: Config, has_steps: bool) -> Identity:
    """What a run is: as train.py recorded it, else by configuration and name, `o2` or `L1-tiny_seed1`.

    Args:
        has_steps: it logged train/steps, which only the original dynamics do.

    Raises:
        RunError: a mode that there is not.
    """
    record = _read_record(path)
    mode = config.get("mode", {}).get("name") or record.get("mode")
    if mode not in (None, "original", "online"):
        raise RunError(f"{path}: its configuration says mode.name={mode!r}; known are original, online")
    if record:
        tasks, overrides, preset = record.get("tasks") or {}, record.get("overrides") or {}, record["preset"]
        own = ("encoder.type",) if preset[0] == "e" else ("mode.", "arch.halt_exploration_prob", "encoder.type")
        is_changed = any(name.startswith(own) for name in overrides)  # in what makes it this preset
        return Identity("" if is_changed else preset, record.get("size") or "", overrides, mode or "original", True,
                        tasks.get("train", 0), tasks.get("evaluation", 0), record.get("protocol") or "",
                        tasks.get("train_digest") or "")
    names = (re.match(r"([olre]\d)(?!\d)(?:-([a-z]+))?", name.lower()) for name in (label, path.resolve().name))
    name, size = next((match.groups(default="") for match in names if match), ("", ""))
    mode = mode or MODES.get(name[:1]) or ("original" if has_steps else "online")
    fits = name in PRESETS and MODES.get(name[0], mode) == mode
    return Identity(name if fits else "", size, {}, mode, is_recorded=False)


def flat(config: Config) -> dict[str, Any]:
    """`section.field` → value."""
    return {f"{section}.{field}": value for section, fields in config.items() for field, value in fields.items()}


def _read_record(path: Path) -> dict[str, Any]:
    try:
        found = json.loads((path / RECORD_FILE).read_text(encoding="utf-8"))
        return found if found["preset"] else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _named_as_ours(theirs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The configuration of a PyTorch run in our sections; its mode is in none of their fields."""
    ours: dict[str, dict[str, Any]] = {}
    for name, value in {**theirs, **(theirs.get("arch") or {})}.items():
        if name == "encoder_type":
            ours["encoder"] = {"type": value}
        elif name not in TORCH_NO_SETTINGS and value is not None:
            ours.setdefault(TORCH_FIELDS.get(name, "torch"), {})[name] = value
    return ours
