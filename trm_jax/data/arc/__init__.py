"""Tasks, their augmentation, voting and drawing: plain numpy."""
