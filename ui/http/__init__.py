"""The API and the door in front of it."""
