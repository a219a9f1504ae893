"""Looking after what is kept: backup, verify, copy-to, erase."""
