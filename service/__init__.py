"""Joins the two cores, npo_core and collection: generate and record, vote and reveal, offer adapter versions."""
