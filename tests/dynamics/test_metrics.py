import jax
import jax.numpy as jnp
import numpy as np

from trm_jax.dynamics.metrics import Mean, Packed, single


def test_what_is_packed_comes_back_as_it_was():
    """As one array, and whole numbers exactly, also those that float32 does not have."""
    metrics = {"loss": Mean(jnp.asarray(1 / 3), jnp.asarray(7.0)),
               "samples": Mean(jnp.asarray(2**24 + 1), jnp.ones(())),
               "lr": single(1e-30), "bad": single(jnp.nan)}
    packed = jax.jit(Packed.of)(metrics)
    assert len(jax.tree.leaves(packed)) == 1
    found = dict(jax.device_get(packed))
    assert found.keys() == metrics.keys()
    for name, mean in metrics.items():
        np.testing.assert_array_equal(found[name].sum, mean.sum)
        np.testing.assert_array_equal(found[name].count, mean.count)
        assert found[name].sum.dtype == mean.sum.dtype
