"""What `trm_jax.compare` is made of: event files → runs → groups of seeds → verdict → report.

Each file imports only those before it: `wording`, `series`, `events`, `metrics`, `axes`, `runs`, `groups`,
`contests`, `speed`, `criteria`, `presets`, `plan`, `caveats`, `verdict`, `table`, `curves`, `plots`,
`report`. Nothing here imports JAX or the rest of trm_jax, so that a comparison starts at once.
"""
