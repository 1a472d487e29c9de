"""Accuracy of `match` on real animals, beside pyFM."""
