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
MODES = {"o": "original", "r": "original", "e": "original", "l": "online"}  # by the letter of the plan's series
PRESETS = ("o1", "o2", "o3", "r1", "l1", "l2", "l3", "e1", "e2", "e3")  # of the plan
TORCH_NAMES = {  # the PyTorch project's → ours
    "global_batch_size": "data.global_batch_size",
    "max_train_groups": "data.max_train_groups",
    "max_eval_groups": "data.max_eval_groups",
    "epochs": "train.epochs",
    "seed": "train.seed",
    "load_pretrained_decoder": "train.load_pretrained_decoder",
    "lr_min_ratio": "optim.lr_min_ratio",
    "arch.num_act_steps": "mode.num_act_steps",
    "arch.halt_max_steps": "arch.halt_max_steps",
    "arch.halt_exploration_prob": "arch.halt_exploration_prob",
    "arch.encoder_type": "encoder.type",
}
TORCH_REST = "torch"  # the section of everything else: runs that differ in it are no seeds of one configuration
TORCH_NO_SETTINGS = ("run_name", "project_name", "checkpoint_path")
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
            theirs = yaml.safe_load((path / TORCH_FILE).read_text(encoding="utf-8"))
            found = _named_as_ours(theirs) if isinstance(theirs, dict) else theirs
        elif CONFIG_TEXT in texts:  # TensorBoard shows texts as Markdown: the JSON may stand in a code block
            text = texts[CONFIG_TEXT].content
            found = json.loads(text[text.find("{"):text.rfind("}") + 1])
        else:
            return {}
        if not isinstance(found, dict):
            raise ValueError("no sections")
    except (ValueError, yaml.YAMLError) as error:
        notes.append(f"a configuration that cannot be read ({' '.join(str(error).split())}) is taken for none")
        return {}
    return {section: values for section, values in found.items() if isinstance(values, dict)}


def identify(path: Path, label: str, config: Config, has_steps: bool) -> Identity:
    """What a run is: as train.py recorded it, else by configuration and name, `o2` or `L1-tiny_seed1`.

    Args:
        has_steps: it logged train/steps, which only the original dynamics do.

    Raises:
        RunError: a mode that there is not.
    """
    recorded = _read_record(path)
    names = [re.match(r"([olre]\d)(?!\d)(?:-([a-z]+))?", name.lower()) for name in (label, path.resolve().name)]
    match = next(filter(None, names), None)
    name, size = (match[1], match[2] or "") if match else ("", "")
    mode = config.get("mode", {}).get("name") or recorded.get("mode")
    if mode not in (None, "original", "online"):
        raise RunError(f"{path}: its configuration says mode.name={mode!r}; known are original, online")
    if recorded:
        tasks, overrides = recorded.get("tasks") or {}, recorded.get("overrides") or {}
        preset = recorded.get("preset") or ""
        own = ("encoder.type",) if preset.startswith("e") else ("mode.", "arch.halt_exploration_prob", "encoder.type")
        if any(field.startswith(own) for field in overrides):
            preset = ""  # what makes the preset has been changed
        return Identity(preset, recorded.get("size") or "", overrides, mode or "original", True,
                        tasks.get("train", 0), tasks.get("evaluation", 0), recorded.get("protocol") or "",
                        tasks.get("train_digest") or "")
    if mode is None:
        mode = MODES[name[0]] if name and name[0] != "e" else "original" if has_steps else "online"
    fits = name in PRESETS and (name[0] == "e" or MODES[name[0]] == mode)
    return Identity(name if fits else "", size, {}, mode, is_recorded=False)


def flat(config: Config) -> dict[str, Any]:
    """`section.field` → value."""
    return {f"{section}.{field}": value for section, fields in config.items() for field, value in fields.items()}


def _read_record(path: Path) -> dict[str, Any]:
    try:
        found = json.loads((path / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("preset") else {}


def _named_as_ours(theirs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The configuration of a PyTorch run in our sections; its mode is in none of their fields."""
    names = {name: value for name, value in theirs.items() if name != "arch"}
    names |= {f"arch.{name}": value for name, value in (theirs.get("arch") or {}).items()}
    ours: dict[str, dict[str, Any]] = {}
    for name, value in names.items():
        section, name_of_ours = TORCH_NAMES.get(name, f"{TORCH_REST}.{name.replace('.', '_')}").split(".")
        if name not in TORCH_NO_SETTINGS and value is not None:
            ours.setdefault(section, {})[name_of_ours] = value
    return ours
