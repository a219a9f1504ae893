"""A vote's way: ballots, casting, comparisons, counts."""
