"""The logic of each kind of step: pure functions from a row, and an answer, to an outcome."""
