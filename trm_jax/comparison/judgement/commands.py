"""Command lines that train a run of the plan as the runs so far were trained.

What a run was given besides its preset is the difference of its recorded configuration from that preset at its
size: a pretrained decoder, a learning rate, a length. A command carries all of it over.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trm_jax.comparison.judgement.presets import BASELINES, Settings, differences, flat, preset, preset_of, size_of
from trm_jax.comparison.record.groups import Group
from trm_jax.comparison.record.runs import Run

SEED = "train.seed"
DEMO_SLOTS = "encoder.max_demos"  # the one field of `encoder` that speaks of the data


@dataclass(frozen=True)
class Trained:
    """How a run was trained; where its configuration does not say, as its preset does."""

    name: str  # of its preset or, where it has none, of the control of its mode
    size: str
    settings: Settings
    path: Path


def trained(group: Group, run: Run) -> Trained:
    """How `run` of `group` was trained."""
    recorded = flat(run.config)
    name, size = preset_of(group) or BASELINES[group.mode], size_of(recorded)
    return Trained(name, size, {**preset(name, size), **recorded}, run.path)


def first_trained(group: Group) -> Trained:
    """How the run with the lowest seed of a group was trained."""
    return min((trained(group, run) for run in group.runs), key=lambda run: run.settings[SEED])


def to_finish(group: Group) -> list[Run]:
    """The runs of a group that can go on; one that diverged would do so again."""
    return [run for run in group.runs if run.is_unfinished and not run.diverged]


def finishing(group: Group) -> list[str]:
    """The commands that the runs of a group which can go on were started with."""
    runs = [trained(group, run) for run in to_finish(group)]
    return [_command(run.name, run.size, run.settings, run.path) for run in runs]


def another_seed(group: Group) -> str:
    """The command of the group's next run: the same but for a seed above all that it has."""
    run = first_trained(group)
    seed = 1 + max(trained(group, member).settings[SEED] for member in group.runs)
    return _beside(run, run.name, {**run.settings, SEED: seed})


def variation(run: Trained, control: str, name: str) -> str:
    """The command of preset `name` with everything that `run` has otherwise than the preset `control`.

    Only what `name` itself varies is its own.
    """
    own = _varied(name, control)
    given = differences(run.settings, preset(control, run.size))
    carried = {field: value for field, value in given.items() if field not in own}
    return _beside(run, name, {**preset(name, run.size), **carried})


def folder_name(name: str, size: str, seed: int) -> str:
    """What the folder of a run is called: `o2` or, at another size and seed than the usual, `o2-tiny_seed1`."""
    return f"{name}{'-' + size if size else ''}{f'_seed{seed}' if seed else ''}"


def _varied(name: str, control: str) -> set[str]:
    """The fields in which two presets differ at full size; another type of encoder is another encoder as a whole."""
    varied = set(differences(preset(name), preset(control)))
    if "encoder.type" in varied:
        varied |= {field for field in preset(name) if field.startswith("encoder.")} - {DEMO_SLOTS}
    return varied


def _beside(run: Trained, name: str, settings: Settings) -> str:
    workdir = run.path.parent / folder_name(name, run.size, settings[SEED])
    return _command(name, run.size, settings, workdir)


def _command(name: str, size: str, settings: Settings, workdir: Path) -> str:
    overrides = differences(settings, preset(name, size))
    return shlex.join(
        [
            "./launch.sh",
            f"--config=configs/{name}.py{':' + size if size else ''}",
            f"--workdir={workdir}",
            *(f"--config.{field}={_text(value)}" for field, value in overrides.items()),
        ]
    )


def _text(value: Any) -> str:
    """A value as a command line has it; JSON turned tuples into lists."""
    return str(tuple(value)).replace(" ", "") if isinstance(value, list) else str(value)
