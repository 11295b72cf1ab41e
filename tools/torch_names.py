"""PyTorch's names of every array, and ours: one table, used in both directions.

A PyTorch key, without the prefixes that wrappers add, starts with `inner.` (decoder) or `encoder.`. Ours is the
path in the parameter or buffer tree, joined with dots. Linear weights are (out, in) there and (in, out) here.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

Tree = dict[Any, Any]
MAX_NAMED = 4  # problems that an error spells out; a checkpoint of another model has dozens

# Ours (whole path, as a pattern) → PyTorch's; the first rule that matches names the array.
RULES: tuple[tuple[str, str], ...] = (
    (r"encoder\.table", r"inner.puzzle_emb.weights"),
    (r"decoder\.(L_level\.layers\.\d+)\.mixer\.(qkv_proj|o_proj)\.kernel", r"inner.\1.self_attn.\2.weight"),
    (r"decoder\.(L_level\.layers\.\d+)\.mixer\.(gate_up_proj|down_proj)\.kernel", r"inner.\1.mlp_t.\2.weight"),
    (r"decoder\.embed_tokens\.embedding", r"inner.embed_tokens.embedding_weight"),
    (r"decoder\.embed_pos", r"inner.embed_pos.embedding_weight"),
    (r"decoder\.(.+)\.kernel", r"inner.\1.weight"),
    (r"decoder\.(.+)", r"inner.\1"),
    (r"encoder\.set_encoder\.output_proj\.kernel", r"encoder.output_proj.weight"),
    (r"encoder\.set_encoder\.(layers\.\d+)\.mixer\.(\w+)\.kernel", r"encoder.set_encoder.\1.\2.weight"),
    (r"encoder\.(?:demo|task)_latent\.(\w+)\.kernel", r"encoder.\1.weight"),
    (r"encoder\.(?:demo|task)_latent\.(\w+)\.bias", r"encoder.\1.bias"),
    (r"encoder\.grid_encoder\.pool\.query", r"encoder.grid_encoder.pool_query"),
    (r"encoder\.grid_encoder\.pool\.(?:attention\.)?(\w+)\.kernel", r"encoder.grid_encoder.pool_\1.weight"),
    (r"encoder\.(.+)\.embedding", r"encoder.\1.embedding_weight"),
    (r"encoder\.(.+)\.kernel", r"encoder.\1.weight"),
    (r"encoder\.(.+)", r"encoder.\1"),
)


class KeyMismatch(ValueError):
    """A state dict that is not this model's; the message names the keys."""


def leaves(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value of every leaf of a nested dict."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def name_table(*trees: Tree) -> dict[str, str]:
    """Our path → PyTorch key, for every leaf of the parameter and buffer trees of one model."""
    paths = [path for tree in trees for path, _ in leaves(tree)]
    has_cls = "encoder.grid_encoder.cls_token" in paths
    return {path: _torch_name(path, has_cls) for path in paths}


def _torch_name(path: str, has_cls: bool) -> str:
    for pattern, replacement in RULES:
        if re.fullmatch(pattern, path):
            name = re.sub(pattern, replacement, path)
            return name.replace(".mixer.", "." if has_cls else ".self_attn.")
    raise KeyError(f"no rule names the parameter {path}")


def to_torch(*trees: Tree) -> dict[str, np.ndarray]:
    """PyTorch key → array, for every leaf of the parameter and buffer trees of one model."""
    table = name_table(*trees)
    return {table[path]: _transpose(path, np.asarray(value)) for tree in trees for path, value in leaves(tree)}


def from_torch(state: Mapping[str, np.ndarray], *trees: Tree) -> tuple[Tree, ...]:
    """The trees with every leaf replaced by its PyTorch array, in the leaf's dtype.

    Args:
        state: PyTorch key (without wrappers' prefixes) → array.
        trees: parameters, buffers (arrays or shapes) of the model to fill.

    Raises:
        KeyMismatch: naming the keys that are missing, left over, or of another shape.
    """
    table = name_table(*trees)
    check_keys({name: array.shape for name, array in state.items()}, *trees)

    def fill(tree: Tree, prefix: str = "") -> Tree:
        return {
            key: fill(value, f"{prefix}{key}.") if isinstance(value, dict)
            else _transpose(f"{prefix}{key}", state[table[f"{prefix}{key}"]]).astype(value.dtype)
            for key, value in tree.items()
        }

    return tuple(fill(tree) for tree in trees)


def check_keys(shapes: Mapping[str, tuple[int, ...]], *trees: Tree) -> None:
    """Raises KeyMismatch unless the PyTorch keys and shapes are those of the model that `trees` describe."""
    table = name_table(*trees)
    expected = {table[path]: tuple(leaf.shape[::-1] if path.endswith(".kernel") else leaf.shape)
                for tree in trees for path, leaf in leaves(tree)}
    problems = [f"{name} is missing" for name in expected if name not in shapes]
    problems += [f"{name} is unknown" for name in shapes if name not in expected]
    problems += [f"{name} has shape {tuple(shape)}, expected {expected[name]}"
                 for name, shape in shapes.items() if name in expected and tuple(shape) != expected[name]]
    if problems:
        more = f"; and {len(problems) - MAX_NAMED} more" if len(problems) > MAX_NAMED else ""
        raise KeyMismatch("; ".join(problems[:MAX_NAMED]) + more)


def _transpose(path: str, array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.T) if path.endswith(".kernel") else array
