"""What a study owns: its configuration, assignment, pools, prompts, participants, quality."""
