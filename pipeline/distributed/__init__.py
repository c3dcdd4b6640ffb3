"""Ranks, their process group and collectives, and the setup of DeepSpeed."""
