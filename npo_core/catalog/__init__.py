"""What exists: the families, families of one's own, references, the Hub, adapter files, prompts. No torch."""
