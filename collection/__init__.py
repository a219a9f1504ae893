"""Keeps what people said: generations, ballots, votes, adapters and training runs. Knows no torch, no web page."""
