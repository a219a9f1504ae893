"""What the votes say: pure functions of counts, no database."""
