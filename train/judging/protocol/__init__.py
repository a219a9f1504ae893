"""A fair comparison of contenders: each tuned on choice prompts, then measured once on held-out ones."""
