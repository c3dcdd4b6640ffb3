"""The command deep-prompt: one module per command."""
