"""One update of a training run, and answering: pure functions of arrays."""
