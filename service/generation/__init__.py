"""Whose turn it is on the device, and which adapters are in use."""
