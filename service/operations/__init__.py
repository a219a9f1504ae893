"""Health, metrics, logs, the backup to the Hub, Spaces."""
