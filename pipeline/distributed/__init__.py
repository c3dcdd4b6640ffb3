"""Ranks, their process group and collectives, and the set-up of DeepSpeed."""
