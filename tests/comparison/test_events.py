"""Event files of every producer give the same series, whatever has happened to the files."""

import json

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.types_pb2 import DT_DOUBLE, DT_FLOAT, DT_STRING
from tensorboardX import SummaryWriter

from tests.comparison.fabricate import START_S, level, original_config, record, slope, write_run
from trm_jax.comparison.record.events import Text, read_events
from trm_jax.comparison.record.runs import load_run


def test_scalars_and_texts_of_tensorboardx(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(5):
            writer.add_scalar("train/loss", 1 / (step + 1), step)
        writer.add_text("config", '{"mode": {"name": "online"}}')
        writer.add_image("eval/grid", np.zeros((3, 4, 4), np.uint8), 4)
    events = read_events(tmp_path)
    np.testing.assert_allclose(events.series["train/loss"].values, [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5], rtol=1e-6)
    assert {tag: text.content for tag, text in events.texts.items()} == {"config": '{"mode": {"name": "online"}}'}
    assert set(events.series) == {"train/loss"}
    assert not events.notes


@pytest.mark.parametrize("new_style", [False, True])
def test_scalars_of_torch(tmp_path, new_style):
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    with tensorboard.SummaryWriter(str(tmp_path)) as writer:
        for step in (0, 10, 20):
            writer.add_scalar("train/accuracy", step / 100, step, new_style=new_style)
    series = read_events(tmp_path).series["train/accuracy"]
    np.testing.assert_allclose(series.values, [0, 0.1, 0.2], rtol=1e-6)
    assert series.steps.tolist() == [0, 10, 20]


def test_tensors_as_tensorflow_writes_them(tmp_path):
    event = Event(wall_time=START_S, step=3)
    event.summary.value.add(tag="packed").tensor.MergeFrom(
        Event().summary.value.add().tensor.__class__(dtype=DT_FLOAT, tensor_content=np.float32(0.5).tobytes())
    )
    event.summary.value.add(tag="double").tensor.dtype = DT_DOUBLE
    event.summary.value[1].tensor.double_val.append(0.25)
    event.summary.value.add(tag="text").tensor.dtype = DT_STRING
    event.summary.value[2].tensor.string_val.append(b"hello")
    (tmp_path / "events.out.tfevents.1.v2").write_bytes(record(event))
    events = read_events(tmp_path)
    assert {tag: series.values.tolist() for tag, series in events.series.items()} == {
        "packed": [0.5],
        "double": [0.25],
    }
    assert events.texts == {"text": Text("hello", 3, START_S)}


@pytest.mark.parametrize("kept_bytes", [7, 45, -3])
def test_a_truncated_file_gives_its_whole_records(tmp_path, kept_bytes):
    write_run(tmp_path, {"train/loss": slope(1.0, 0.0)})
    whole = read_events(tmp_path).series["train/loss"]
    path = next(tmp_path.glob("events*"))
    path.write_bytes(path.read_bytes()[:kept_bytes])
    events = read_events(tmp_path)
    assert "ends within a record" in events.notes[0]
    if kept_bytes < 0:
        assert events.series["train/loss"].values.tolist() == whole.values[:-1].tolist()
    else:
        assert not events.series


def test_a_damaged_record_ends_the_file(tmp_path):
    path = next(write_run(tmp_path, {"train/loss": slope(1.0, 0.0)}).glob("events*"))
    data = bytearray(path.read_bytes())
    data[-60:-10] = b"\xff" * 50
    path.write_bytes(bytes(data))
    events = read_events(tmp_path)
    assert len(events.notes) == 1
    assert 240 < len(events.series["train/loss"]) < 250


def test_values_that_are_not_finite_are_kept_apart(tmp_path):
    steps, values = level(0.5)
    values[[1, 3]] = np.nan, np.inf
    series = read_events(write_run(tmp_path, {"train/loss": (steps, values)})).series["train/loss"]
    assert series.bad_steps.tolist() == [20, 40]
    assert np.isfinite(series.values).all() and len(series) == len(steps) - 2


def test_a_restart_replaces_what_it_repeats(tmp_path):
    steps = np.arange(10, 101, 10)
    write_run(tmp_path, {"train/loss": (steps, np.ones(10))}, seconds_per_batch=1.0)
    later = (steps[6:] + 5, np.full(4, 2.0))  # from step 75 on
    write_run(tmp_path, {"train/loss": later}, start_s=START_S + 86_400, seconds_per_batch=1.0, suffix="1")
    run = load_run(tmp_path, "run")
    loss = run.series["train/loss"]
    assert loss.steps.tolist() == [10, 20, 30, 40, 50, 60, 70, 75, 85, 95, 105]
    assert loss.values.tolist() == [1.0] * 7 + [2.0] * 4
    # 91 s in the first session and 31 s in the second; the day between them does not count.
    assert run.end["hours"] == pytest.approx((91 + 31) / 3600, abs=1e-4)


def test_the_configuration_inside_the_events(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_text("config", f"```\n{json.dumps(original_config(train__seed=3))}\n```")
        writer.add_scalar("train/steps", 4.0, 1)
        writer.add_scalar("train/steps", 4.0, 2)
    run = load_run(tmp_path, "run")
    assert run.setting("train.seed") == 3
    assert not run.mode_is_inferred


def test_a_configuration_that_cannot_be_read_is_noted(tmp_path):
    write_run(tmp_path, {"train/accuracy": level(0.5)})
    (tmp_path / "config.json").write_text("{broken}", encoding="utf-8")
    run = load_run(tmp_path, "run")
    assert run.mode_is_inferred and "config.json" in run.notes[0]
