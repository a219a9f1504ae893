"""Requests to latents: a stock pipeline with a routed network inside."""
