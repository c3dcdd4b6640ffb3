"""Pretrained backbones: their location, family and tokenizer. Imports no torch."""
