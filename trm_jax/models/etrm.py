"""The encoder-based TRM: demonstrations → context → recursive decoder."""

from typing import Any

from flax import nnx

from trm_jax.models.decoder import ArchConfig, Decoder
from trm_jax.models.encoders import EncoderConfig, make_source
from trm_jax.models.layers import Buffer

Tree = dict[str, Any]


class ETRM(nnx.Module):
    """Encoder, or another source of context, and decoder of one canvas size.

    Args:
        arch, encoder: the config's sections.
        seq_len: S, tokens of one grid canvas (side²).
        table_rows: of the embedding table, 0 for a model that reads demonstrations.
    """

    def __init__(self, arch: ArchConfig, encoder: EncoderConfig, seq_len: int, rngs: nnx.Rngs, table_rows: int = 0):
        self.encoder = make_source(arch, encoder, table_rows, rngs)
        self.decoder = Decoder(arch, seq_len, rngs)


def split(model: nnx.Module) -> tuple[nnx.GraphDef, Tree, Tree]:
    """The static graph, the trained parameters and the fixed buffers, both nested dicts of arrays.

    `flax.nnx.merge(graph, parameters, buffers)` puts the module together again.
    """
    graph = nnx.graphdef(model)
    return graph, nnx.to_pure_dict(nnx.state(model, nnx.Param)), nnx.to_pure_dict(nnx.state(model, Buffer))
