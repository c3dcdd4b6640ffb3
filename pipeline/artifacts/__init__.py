"""What training leaves behind: an artifact with its prompt, heads and config."""
