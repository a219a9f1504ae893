"""The connection: engine, dialects, faults, migrations, tables, SQL."""
