"""Pictures and clips as bytes and back."""
