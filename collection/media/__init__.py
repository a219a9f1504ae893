"""Where pictures and clips are kept, by the hash of their content."""
