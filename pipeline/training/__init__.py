"""The training loop and what it needs: engine, optimizer, checkpoints and the hidden-state cache."""
