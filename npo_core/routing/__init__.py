"""Rows of one batch through weights of their own."""
