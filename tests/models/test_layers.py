import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trm_jax.models.layers import parameter_keys, product


@pytest.mark.parametrize("dtype, limit", [(jnp.float32, 1e-6), (jnp.bfloat16, 2e-2)])
def test_a_product_has_the_gradient_of_matmul(dtype, limit):
    rng = np.random.default_rng(0)
    x, weight, d_out = (jnp.asarray(rng.normal(size=shape), dtype) for shape in ((2, 3, 8), (8, 5), (2, 3, 5)))
    found, expected = (jax.vjp(f, x, weight)[1](d_out) for f in (product, jnp.matmul))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype == dtype
        np.testing.assert_allclose(np.float32(ours), np.float32(theirs), rtol=0, atol=limit * np.abs(theirs).max())


def test_parameters_have_the_keys_that_nnx_would_give_them():
    ours, theirs = parameter_keys(3), nnx.Rngs(3)
    for _ in range(3):
        np.testing.assert_array_equal(*(jax.random.key_data(keys.params()) for keys in (ours, theirs)))
