"""How captions and prompts of the emoji family are worded, and which words it knows."""
