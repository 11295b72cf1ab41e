"""From run folders to an answer: events → runs → groups → statistics → criteria → verdict → plan → report.

Nothing here imports JAX: a comparison starts at once."""
