"""What every task has: the contract, rows, examples, edits, claims and features."""
