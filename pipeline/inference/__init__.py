"""Prediction with artifacts of one or many tasks over one backbone."""
