"""What several tasks use: tagging, and the validation of texts and words."""
