"""What groups of runs say: contests and criteria → verdict, and what to run next."""
