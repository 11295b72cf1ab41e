"""The presets of the experiment plan, and which of them a group of runs is."""

import re

from trm_jax.comparison.contests import ACCURACY_MARGIN, ONE_SEED_FLOOR, ONLINE, ORIGINAL
from trm_jax.comparison.groups import Estimate, Group, Standing, difference

_ONCE: dict[str, object] = {"encoder.type": "standard", "mode.name": "original", "mode.encode": "once"}
_ONLINE: dict[str, object] = {"encoder.type": "standard", "mode.name": "online"}
PRESETS: dict[str, dict[str, object]] = {  # the settings that make a configuration a preset of the plan
    "o1": {**_ONCE, "arch.halt_exploration_prob": 0.5},
    "o2": {**_ONCE, "arch.halt_exploration_prob": 0.3},
    "o3": {**_ONCE, "arch.halt_exploration_prob": 0.7},
    "r1": {**_ONCE, "mode.encode": "every_step"},
    "l1": {**_ONLINE, "mode.num_act_steps": 4},
    "l2": {**_ONLINE, "mode.num_act_steps": 8},
    "l3": {**_ONLINE, "mode.num_act_steps": 16},
    "e1": {"encoder.type": "hybrid_standard"},
    "e2": {"encoder.type": "hybrid_variational"},
    "e3": {"encoder.type": "lpn_variational"},
}
BASELINES = {ORIGINAL: "o1", ONLINE: "l1"}
E_SERIES = ("e1", "e2", "e3")
SERIES_BY_MODE = {ORIGINAL: "ORE", ONLINE: "LE"}  # in the order in which they may stand for their mode


def preset_of(group: Group) -> str | None:
    """By the configuration of a group or, without one, by the start of its label (`o2`, `L1_run`)."""
    if group.runs[0].config:
        fits = (
            name
            for name, settings in PRESETS.items()
            if all(group.setting(setting) == value for setting, value in settings.items())
        )
        return next(fits, None)
    match = re.match(r"([olre]\d)(?!\d)", group.label.lower())
    name = match.group(1) if match else None
    return name if name in PRESETS and PRESETS[name].get("mode.name", group.mode) == group.mode else None


def series_of(group: Group) -> str:
    """The letter of the series of the plan: O, R, L or E."""
    name = preset_of(group)
    if group.setting("encoder.type") not in (None, "standard") or name in E_SERIES:
        return "E"
    if group.mode == ONLINE:
        return "L"
    return "R" if group.setting("mode.encode") == "every_step" or name == "r1" else "O"


def baseline(groups: list[Group], mode: str) -> Group | None:
    """The group that stands for a mode: its control in the plan, or else the first of its own series."""
    ours = [group for group in groups if group.mode == mode]
    controls = [group for group in ours if preset_of(group) == BASELINES[mode]]
    return next(
        iter(controls + sorted(ours, key=lambda group: SERIES_BY_MODE[mode].index(series_of(group)))), None
    )


def best_of(groups: list[Group], base: Group) -> Group:
    """The baseline of a mode or, of its groups clearly above it in final train accuracy, the highest."""
    tag = "train/accuracy"
    rivals = [
        group for group in groups if group.mode == base.mode and series_of(group) != "E" and group.has(tag)
    ]
    above = [group for group in rivals if base.has(tag) and _is_above(group.final(tag), base.final(tag))]
    return max(above, key=lambda group: group.final(tag).mean, default=base)


def _is_above(a: Estimate, b: Estimate) -> bool:
    return difference(a, b, ONE_SEED_FLOOR).standing(ACCURACY_MARGIN) == Standing.ABOVE
