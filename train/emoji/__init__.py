"""The recipe of the emoji family: data, autoencoder, base, scorer and adapters, each one command."""
