"""What `trm_jax.compare` is made of: event files → runs → groups of seeds → verdict → report.

Each file imports only those before it: `wording`, `series`, `events`, `metrics`, `axes`, `torch_config`,
`configuration`, `runs`, `groups`, `alignment`, `contests`, `speed`, `criteria`, `halting`, `validations`,
`presets`, `commands`, `plan`, `caveats`, `verdict`, `table`, `curves`, `plots`, `report`. Nothing here imports JAX
or the rest of trm_jax, so that a comparison starts at once; the presets are those of configs/.
"""
