"""What runs have left behind: event files → series on common axes → runs → groups of seeds."""
