"""What the pictures and clips of the emoji family show, and how it is drawn: art, scenes, flaws, motions."""
