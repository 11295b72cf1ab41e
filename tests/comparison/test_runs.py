"""Event files of every writer give the same series, and what is recorded beside them is what a run is."""

import json

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.types_pb2 import DT_DOUBLE
from tensorboard.summary.writer.record_writer import RecordWriter

from tests.comparison.fabricate import BATCHES, START_S, between, run, scalars, until, write
from trm_jax.comparison.events import HOURS, RunError, read_events
from trm_jax.comparison.runs import load_run
from trm_jax.run import summaries


@pytest.mark.parametrize("new_style", [False, True])
def test_scalars_and_texts_of_every_writer(tmp_path, new_style):
    """torch's, which are tensorboardX's too, and torch's as TensorFlow writes them; of ours: `test_writer`."""
    with pytest.importorskip("torch.utils.tensorboard").SummaryWriter(str(tmp_path)) as writer:
        for step in (0, 10, 20):
            writer.add_scalar("train/loss", 1 / (step + 1), step, new_style=new_style)
        writer.add_text("config", '{"mode": {"name": "online"}}')
        writer.add_image("eval/grid", np.zeros((3, 4, 4), np.uint8), 4)
    series, texts = read_events(tmp_path)
    assert set(series) == {"train/loss", HOURS} and series["train/loss"].steps.tolist() == [0, 10, 20]
    np.testing.assert_allclose(series["train/loss"].values, [1, 1 / 11, 1 / 21], rtol=1e-6)
    assert texts["config"][1] == '{"mode": {"name": "online"}}'
    assert load_run(tmp_path, "run").mode == "online"  # by the text


def test_a_restart_replaces_what_it_repeats_and_its_pause_is_no_time(tmp_path):
    steps = np.arange(10, 101, 10)
    write(tmp_path, {"train/loss": (steps, np.ones(10)), "train/samples": (steps, steps * 2.0)})
    again = np.arange(70, 131, 10)
    write(tmp_path, {"train/loss": (again, np.zeros(7)), "train/samples": (again, (again - 60) * 2.0)},
          start_s=START_S + 86_400)
    found = load_run(tmp_path, "o1")
    assert found.series["train/loss"].values.tolist() == [1.0] * 6 + [0.0] * 7
    assert found.end("samples") == 120 + 140  # the count began anew
    assert found.end("hours") == pytest.approx((91 + 61) / 3600, rel=0.02)


def test_a_file_that_ends_within_a_record_gives_its_whole_ones(tmp_path):
    path = next(run(tmp_path, "o1").glob("events*"))
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    found = load_run(path.parent, "o1")
    assert 0.4 < found.progress < 0.6 and found.is_unfinished


def test_values_that_are_not_finite_are_kept_apart_and_numbers_in_tensors_read(tmp_path):
    with (tmp_path / "events.out.tfevents.1.0").open("wb") as stream:
        writer = RecordWriter(stream)
        for step, value in enumerate([0.5, np.nan, 0.7], start=1):
            event = Event(step=step, wall_time=step)
            found = event.summary.value.add(tag="train/loss")
            found.tensor.dtype = DT_DOUBLE
            found.tensor.double_val.append(value)
            writer.write(event.SerializeToString())
    series = read_events(tmp_path)[0]["train/loss"]
    assert (series.steps.tolist(), series.values.tolist(), series.bad_steps.tolist()) == ([1, 3], [0.5, 0.7], [2])
    assert not series.diverged()


@pytest.mark.parametrize(("last", "diverged"), [(1000, True), (BATCHES, False)])
def test_a_run_that_says_why_it_stopped_has_diverged_until_it_has_passed_that(tmp_path, last, diverged):
    write(tmp_path, until(1250, scalars("o1")))
    with (tmp_path / f"events.out.tfevents.{int(START_S)}.failed").open("wb") as stream:
        RecordWriter(stream).write(Event(wall_time=START_S + 1251, step=1250, summary=summaries.text(
            "failed", "the loss is not finite\nTraceback …")).SerializeToString())
    steps, loss = until(last, scalars("o1"))["train/loss"]
    write(tmp_path, {"train/loss": (steps[steps > 900], loss[steps > 900])}, start_s=START_S + 86_400)
    found = load_run(tmp_path, "o1")
    assert found.diverged == diverged and found.failure == ("the loss is not finite" if diverged else "")


def test_a_run_is_what_train_recorded_not_what_its_folder_is_called(tmp_path):
    found = run(tmp_path, "l2", size="tiny", overrides={"optim.lr": 0.1})
    found = found.rename(tmp_path / "o3")
    identity = load_run(found, "o3").identity
    assert (identity.preset, identity.size, identity.mode, identity.overrides) == ("l2", "tiny", "online",
                                                                                   {"optim.lr": 0.1})
    assert identity.eval_tasks == 32 and load_run(found, "o3").setting("optim.lr") == 0.1
    changed = run(tmp_path, "o1", overrides={"mode.encode": "every_step"})
    assert load_run(changed, "o1").identity.preset == ""  # what makes it O1 is not so


@pytest.mark.parametrize(("folder", "label", "preset", "size", "mode"), [
    ("L1_online_4steps", "run", "l1", "", "online"), ("run", "l2-tiny_seed1", "l2", "tiny", "online"),
    ("R1", "run", "r1", "", "original"), ("e1", "run", "e1", "", "original"), ("search", "l10", "", "", "original")])
def test_without_a_record_the_name_tells_before_the_tags_do(tmp_path, folder, label, preset, size, mode):
    found = load_run(write(tmp_path / folder, {"train/steps": between(4.0, 4.0)}), label).identity
    assert (found.preset, found.size, found.mode, found.is_recorded) == (preset, size, mode, False)


def test_configurations_that_cannot_be_read_and_one_of_no_mode(tmp_path):
    found = write(tmp_path / "O1", scalars("o1"))
    for text in ("{broken", "a text", "["):
        (found / "config.json").write_text(text, encoding="utf-8")
        broken = load_run(found, "torch")
        assert not broken.config and "cannot be read" in broken.notes[0] and "\n" not in broken.notes[0]
    texts = {field: "many" for field in ("seed", "epochs", "log_every_steps", "max_eval_groups", "global_batch_size")}
    (found / "config.json").write_text(json.dumps({"train": texts, "data": texts | {"source": []}}), encoding="utf-8")
    (found / "run.json").write_text(json.dumps({"preset": "o1", "size": "", "overrides": {}, "tasks": [7]}))
    foreign = load_run(found, "torch")  # a configuration of somebody else's
    assert (foreign.seed, foreign.progress, foreign.eval_tasks, foreign.identity.is_recorded) == (0, 1, 400, False)
    (found / "config.json").write_text(json.dumps({"mode": {"name": "mixed"}}), encoding="utf-8")
    with pytest.raises(RunError, match="mixed"):
        load_run(found, "torch")
