"""Every negative, and every rival to one, trained alike."""
