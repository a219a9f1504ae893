"""What predicts: the model, its LoRA, noise and schedules."""
