"""Network parts that the autoencoder and the prior share."""
