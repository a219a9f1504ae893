"""Votes in and out, as other people's files have them."""
