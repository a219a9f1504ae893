"""From a comparison to a vote: compare, pool, study, picks, people, limits."""
