"""The presets of the experiment plan as configs/ has them, and which of them a run or a group of runs is."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from trm_jax.comparison.judgement.contests import ACCURACY_MARGIN, ONE_SEED_FLOOR, ONLINE, ORIGINAL
from trm_jax.comparison.record.events import RunError
from trm_jax.comparison.record.groups import Estimate, Group, Standing, difference

Settings = Mapping[str, Any]  # `section.field` → value, as config.json has it

NAMES = ("o1", "o2", "o3", "r1", "l1", "l2", "l3", "e1", "e2", "e3")
SIZES = ("", "tiny")  # what may stand behind the colon
BASELINES = {ORIGINAL: "o1", ONLINE: "l1"}
E_SERIES = ("e1", "e2", "e3")
SERIES_BY_MODE = {ORIGINAL: "ORE", ONLINE: "LE"}  # in the order in which they may stand for their mode
# What makes a run the preset that it is: first its encoder, then how it trains. E runs train as the winner did.
ENCODER, TRAINING = ("encoder.",), ("mode.", "arch.halt_exploration_prob")


@cache
def preset(name: str, size: str = "") -> Settings:
    """The settings of a preset at a size.

    Raises:
        RunError: configs/ is not there to be imported.
    """
    try:
        module = import_module(f"configs.{name}")
    except ImportError as error:
        raise RunError(f"the presets cannot be read ({error}); run this from the repository's root") from None
    return flat(json.loads(module.get_config(size).to_json()))


def flat(config: Mapping[str, Any]) -> Settings:
    """The settings of a nested configuration that are known: those that are not None."""
    return {
        f"{section}.{field}": value
        for section, fields in config.items()
        if isinstance(fields, Mapping)
        for field, value in fields.items()
        if value is not None
    }


def differences(settings: Settings, origin: Settings) -> Settings:
    """What `settings` has otherwise than `origin`, of the fields that both have."""
    return {name: value for name, value in settings.items() if name in origin and value != origin[name]}


def size_of(settings: Settings) -> str:
    """The size whose presets come nearest to the settings; full where nothing is known."""
    return min(SIZES, key=lambda size: min(_distance(settings, name, size) for name in NAMES))


def telling(names: Sequence[str] = NAMES, size: str = "", prefixes: tuple[str, ...] = ENCODER + TRAINING) -> set[str]:
    """The fields of `prefixes` in which presets differ from each other."""
    among = [preset(name, size) for name in names]
    return {
        field
        for one in among
        for other in among
        for field in differences(one, other)
        if field.startswith(prefixes)
    }


def named(settings: Settings) -> str | None:
    """The preset that has these settings, in all that tells presets apart."""
    size = size_of(settings)
    fits = _alike(settings, _alike(settings, NAMES, size, ENCODER), size, TRAINING)
    return min(fits, key=lambda name: _distance(settings, name, size), default=None)


def preset_of(group: Group) -> str | None:
    """By the configuration of a group or, without one, by the start of its label (`o2`, `L1_run`)."""
    settings = flat(group.runs[0].config)
    if settings:
        return named(settings)
    match = re.match(r"([olre]\d)(?!\d)", group.label.lower())
    name = match.group(1) if match else ""
    return name if name in NAMES and name[0].upper() in SERIES_BY_MODE[group.mode] else None


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


def _distance(settings: Settings, name: str, size: str) -> int:
    return len(differences(settings, preset(name, size)))


def _alike(settings: Settings, names: Sequence[str], size: str, prefixes: tuple[str, ...]) -> list[str]:
    """Those of `names` that the settings agree with in all that tells `names` apart."""
    fields = telling(names, size, prefixes)
    return [name for name in names if not fields & differences(settings, preset(name, size)).keys()]


def _is_above(a: Estimate, b: Estimate) -> bool:
    return difference(a, b, ONE_SEED_FLOOR).standing(ACCURACY_MARGIN) == Standing.ABOVE
