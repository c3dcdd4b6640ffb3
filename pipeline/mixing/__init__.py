"""Mixing of corpora: the corpus and the rows of each micro-batch."""
