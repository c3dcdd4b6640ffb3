"""What the evaluating stages share: loading models and splits."""
