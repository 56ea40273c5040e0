"""Likelihoods of counts: one file each, with its law, its gradient and how counts are drawn from it."""
