"""What TensorBoard shows of a run, as its own records: scalars, texts, pictures, charts, hyper-parameters."""

import io
import time
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as charts_metadata
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.util.tensor_util import make_tensor_proto


def scalars(values: Mapping[str, float]) -> Summary:
    """Tag → value, tags as they are: TensorBoard's own functions would rename pass@1."""
    return Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])


def text(tag: str, content: str) -> Summary:
    """A text, shown as it is, under the tag that other writers give one."""
    return text_pb(f"{tag}/text_summary", f"```\n{content}\n```")


def image(tag: str, picture: np.ndarray) -> Summary:
    """A picture, (height, width, 3) uint8."""
    png = io.BytesIO()
    Image.fromarray(picture).save(png, "png")
    height, width, colours = picture.shape
    shown = Summary.Image(height=height, width=width, colorspace=colours, encoded_image_string=png.getvalue())
    return Summary(value=[Summary.Value(tag=tag, image=shown)])


def charts(layout: Mapping[str, Mapping[str, Sequence[str]]]) -> Summary:
    """The page "Custom Scalars": topic → chart → the tags that it lays over each other."""
    topics = [layout_pb2.Category(title=topic, chart=[
        layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=tags))
        for title, tags in of_topic.items()]) for topic, of_topic in layout.items()]
    tensor = make_tensor_proto(layout_pb2.Layout(category=topics).SerializeToString(), dtype=np.object_)
    return Summary(value=[Summary.Value(tag=charts_metadata.CONFIG_SUMMARY_TAG, tensor=tensor,
                                        metadata=charts_metadata.create_summary_metadata())])


def hyper_parameters(values: Mapping[str, bool | int | float | str]) -> Summary:
    """A run begins, with these.

    The list of an experiment's hyper-parameters is left out: TensorBoard then makes it of all the runs, those in which
    they differ first, with every scalar as a metric.
    """
    return hparams_pb(dict(values))


def finished() -> Summary:
    """A run has come to its end."""
    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.Status.STATUS_SUCCESS, end_time_secs=time.time())
    metadata = hparams_metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=end))
    return Summary(value=[Summary.Value(tag=hparams_metadata.SESSION_END_INFO_TAG, metadata=metadata,
                                        tensor=hparams_metadata.NULL_TENSOR)])
