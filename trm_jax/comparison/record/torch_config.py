"""The configuration of a run of the PyTorch project, under our names as far as it has them."""

from collections.abc import Mapping
from typing import Any

FILE = "all_config.yaml"
NAMES = {  # theirs → ours; arch.… is the section of that name in their file
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
REST = "torch"  # the section of everything else: runs that differ in it are no seeds of one configuration
NO_SETTINGS = ("run_name", "project_name", "checkpoint_path")


def named_as_ours(theirs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The configuration in our sections; its mode is in none of their fields."""
    flat = {name: value for name, value in theirs.items() if name != "arch"}
    flat |= {f"arch.{name}": value for name, value in (theirs.get("arch") or {}).items()}
    ours: dict[str, dict[str, Any]] = {}
    for name, value in flat.items():
        section, field = NAMES.get(name, f"{REST}.{name.replace('.', '_')}").split(".")
        if name not in NO_SETTINGS and value is not None:
            ours.setdefault(section, {})[field] = value
    return ours
