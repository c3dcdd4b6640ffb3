"""Which corpus and which of its rows make each micro-batch."""
