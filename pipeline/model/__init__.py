"""The model: deep prompts, attention, the frozen backbone and the heads."""
