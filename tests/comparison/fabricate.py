"""Event files with a known answer: training runs that never took place."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event

START_S = 1_700_000_000.0  # wall time of the first event
BATCH_SIZE, GROUPS, EPOCHS = 256, 32, 20_000
BATCHES = EPOCHS * GROUPS // BATCH_SIZE  # 2,500
Scalars = Mapping[str, tuple[np.ndarray, np.ndarray]]


def original_config(**settings) -> dict:
    """The configuration of O1 with `section__field=value` changes."""
    config = {
        "mode": {"name": "original", "num_act_steps": 4, "encode": "once"},
        "arch": {"halt_max_steps": 16, "halt_exploration_prob": 0.5},
        "encoder": {"type": "standard"},
        "optim": {"lr": 1e-4},
        "data": {"max_train_groups": GROUPS, "max_eval_groups": GROUPS, "global_batch_size": BATCH_SIZE},
        "train": {"epochs": EPOCHS, "max_steps": None, "seed": 0, "load_pretrained_decoder": ""},
    }
    for name, value in settings.items():
        section, field = name.split("__")
        config[section][field] = value
    return config


def online_config(**settings) -> dict:
    return original_config(**({"mode__name": "online", "mode__encode": "every_step"} | settings))


def learning(
    final: float,
    tau: float = 0.2,
    log_every: int = 10,
    noise: float = 0.005,
    seed: int = 0,
    batches: int = BATCHES,
) -> tuple[np.ndarray, np.ndarray]:
    """Steps and an accuracy that rises to `final` with the time constant `tau`, a share of the training."""
    steps = np.arange(log_every, batches + 1, log_every)
    rng = np.random.default_rng(seed)
    return steps, final * (1 - np.exp(-steps / (tau * BATCHES))) + noise * rng.normal(size=len(steps))


def level(
    value: float, log_every: int = 10, noise: float = 0.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A metric that stays where it is."""
    steps = np.arange(log_every, BATCHES + 1, log_every)
    return steps, value + noise * np.random.default_rng(seed).normal(size=len(steps))


def slope(first: float, last: float, log_every: int = 10, noise: float = 0.0, seed: int = 0):
    """A metric that moves evenly from `first` to `last`."""
    steps, noisy = level(0.0, log_every, noise, seed)
    return steps, np.linspace(first, last, len(steps)) + noisy


def evaluations(last: float) -> tuple[np.ndarray, np.ndarray]:
    """Four evaluations, as in the plan, that rise to `last`."""
    return np.arange(1, 5) * (BATCHES // 4), last * np.array([0.4, 0.7, 0.9, 1.0])


def original_scalars(
    final: float = 0.95, tau: float = 0.2, log_every: int = 10, seed: int = 0, noise: float = 0.005, **changes
) -> dict:
    """A healthy run of the original dynamics; `changes` replace tags (`train__steps=…`), None drops one."""
    scalars = {
        "train/accuracy": learning(final, tau, log_every, noise, seed),
        "train/exact_accuracy": learning(0.9 * final, 2 * tau, log_every, seed=seed + 100),
        "train/loss": slope(2.0, 0.3, log_every, 0.02, seed),
        "train/q_halt_accuracy": slope(0.6, 0.93, log_every, 0.01, seed),
        "train/steps": slope(14.0, 5.0, log_every, 0.2, seed),
        "eval/pass@2": evaluations(0.3),
    }
    return _changed(scalars, changes)


def online_scalars(
    final: float = 0.95, tau: float = 0.2, log_every: int = 10, seed: int = 0, **changes
) -> dict:
    """Like `original_scalars`, of online learning, which has no train/steps."""
    return original_scalars(final, tau, log_every, seed + 50, **({"train__steps": None} | changes))


def write_run(
    folder: Path,
    scalars: Scalars,
    config: dict | None = None,
    seconds_per_batch: float = 1.0,
    start_s: float = START_S,
    suffix: str = "0",
) -> Path:
    """Writes one event file and, with a `config`, config.json beside it; returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with (folder / f"events.out.tfevents.{int(start_s)}.{suffix}").open("wb") as stream:
        stream.write(record(Event(wall_time=start_s, file_version="brain.Event:2")))
        points = sorted(
            (int(step), tag, float(value))
            for tag, (steps, values) in scalars.items()
            for step, value in zip(steps, values, strict=True)
        )
        first = points[0][0]
        for step, tag, value in points:
            event = Event(wall_time=start_s + (step - first + 1) * seconds_per_batch, step=step)
            event.summary.value.add(tag=tag, simple_value=value)
            stream.write(record(event))
    return folder


def record(event: Event) -> bytes:
    """One record of an event file; the checksums are left zero, which the reader does not look at."""
    body = event.SerializeToString()
    return struct.pack("<Q4x", len(body)) + body + bytes(4)


def _changed(scalars: dict, changes: dict) -> dict:
    renamed = {name.replace("__", "/").replace("pass_at_", "pass@"): value for name, value in changes.items()}
    return {tag: value for tag, value in (scalars | renamed).items() if value is not None}
