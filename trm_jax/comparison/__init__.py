"""From run folders to an answer: events → runs → groups → statistics → criteria → verdict → plan → report.

Nothing here imports JAX or more of trm_jax than the table of metrics and the kit of the pages, so that a comparison
starts at once.
"""
