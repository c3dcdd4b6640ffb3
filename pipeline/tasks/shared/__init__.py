"""Code that several tasks share: tagging, windows, dialogues, generation, checks of values."""
