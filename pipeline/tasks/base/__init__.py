"""The parts of every task: contract, rows, examples, edits, claims and features."""
