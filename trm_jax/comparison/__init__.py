"""What `trm_jax.compare` is made of: `record` (event files → runs → groups of seeds) → `judgement` → `presentation`.

Each folder imports only the ones before it. Nothing here imports JAX or the rest of trm_jax, so that a comparison
starts at once; the presets are those of configs/.
"""
