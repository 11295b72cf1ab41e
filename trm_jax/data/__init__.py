"""Tasks → rows → batches."""
