"""One evaluation: from the rows of a plan to votes, scores and a report."""
