"""The training loop with its engine, optimizer, checkpoints and hidden-state cache."""
