"""The family that ships with the project: weights, vocabulary, scorer."""
