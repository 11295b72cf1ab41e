"""▶ Attention forward and backward, in the forms of trm_jax and in PyTorch, taking turns in one process.

    python -m benchmarks.attention [--shape=4,916,8,64] [--forms=blocked,xla] [--repeats=9]

PyTorch's is scaled_dot_product_attention, on as many threads as this process has cores; trm_jax divides the rows over
the virtual devices that a training on these cores has. Figures are the smallest of the
repeats, since other work on the machine can only slow them down; all are of float32 on the CPU. Processor time is of
all threads; on a single core (taskset -c 0) other work hardly changes it.
"""

import os
import time
from collections.abc import Callable

import jax
import numpy as np
import torch
from absl import app, flags

from trm_jax.models.attention import FORMS, attend
from trm_jax.run.mesh import by_rows, data_mesh
from trm_jax.run.startup import use_cores

_SHAPE = flags.DEFINE_list("shape", ["4", "916", "8", "64"], "Rows, tokens, heads, head size.")
_FORMS = flags.DEFINE_list("forms", ["blocked", "xla", "plain"], f"Of {', '.join(FORMS)}; plain keeps T×U.")
_REPEATS = flags.DEFINE_integer("repeats", 9, "Timed runs of each, after one that is not.", lower_bound=1)

Run = Callable[[], list[np.ndarray]]


def of_jax(form: str, arrays: list[np.ndarray]) -> Run:
    """Output and gradients of q, k, v for the cotangent d_out, under jit, a part of the rows on each device."""
    def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        if form == "plain":
            return jax.nn.dot_product_attention(q, k, v, implementation="xla")
        return attend(q, k, v, form)

    def both(q: jax.Array, k: jax.Array, v: jax.Array, d_out: jax.Array) -> tuple[jax.Array, ...]:
        out, gradient = jax.vjp(attention, q, k, v)
        return out, *gradient(d_out)

    mesh = data_mesh()
    rows = by_rows(mesh)
    given = jax.device_put(arrays, rows)
    compiled = jax.jit(jax.shard_map(both, mesh=mesh, in_specs=rows.spec, out_specs=rows.spec,
                                     check_vma=False)).lower(*given).compile()
    return lambda: jax.block_until_ready(compiled(*given))


def of_torch(arrays: list[np.ndarray]) -> Run:
    """As `of_jax`."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    *inputs, d_out = (torch.from_numpy(array).transpose(1, 2) for array in arrays)
    inputs = [x.requires_grad_() for x in inputs]

    def both() -> list[np.ndarray]:
        out = torch.nn.functional.scaled_dot_product_attention(*inputs)
        found = [out.detach(), *torch.autograd.grad(out, inputs, d_out)]
        return [x.transpose(1, 2).numpy() for x in found]

    return both


def main(_: list[str]) -> None:
    jax.config.update("jax_platforms", "cpu")
    rng, shape = np.random.default_rng(0), tuple(int(size) for size in _SHAPE.value)
    use_cores(shape[0])
    arrays = [rng.normal(size=shape).astype(np.float32) for _ in range(4)]
    runs = {"PyTorch": of_torch(arrays)} | {form: of_jax(form, arrays) for form in _FORMS.value}
    expected, taken = runs["PyTorch"](), {name: [] for name in runs}
    for name, run in runs.items():
        for ours, theirs in zip(run(), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4, err_msg=name)
    for _ in range(_REPEATS.value):
        for name, run in runs.items():
            start = time.perf_counter(), time.process_time()
            run()
            taken[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    best = {name: np.min(times, axis=0) for name, times in taken.items()}
    print(f"{shape}, {len(os.sched_getaffinity(0))} cores, {jax.device_count()} devices")
    print(f"{'':10}{'ms':>8}{'ratio':>8}{'processor ms':>15}{'ratio':>8}")
    for name, (wall, processor) in best.items():
        ratios = best[name] / best["PyTorch"]
        print(f"{name:10}{1e3 * wall:8.0f}{ratios[0]:8.2f}{1e3 * processor:15.0f}{ratios[1]:8.2f}")


if __name__ == "__main__":
    app.run(main)
