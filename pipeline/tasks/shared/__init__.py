"""Code shared by several tasks: tagging, and the validation of texts and words."""
