"""From run folders to an answer, without JAX: events, runs, groups, statistics, criteria, verdict, plan, report."""
