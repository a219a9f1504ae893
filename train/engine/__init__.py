"""How it runs: loop, resume, records, precision, sharding, validation."""
