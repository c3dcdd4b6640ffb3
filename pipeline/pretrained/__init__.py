"""Pretrained backbones on disk: where one is, which family it is of, and its tokenizer. No torch."""
