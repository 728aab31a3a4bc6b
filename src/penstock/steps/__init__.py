"""What each kind of step does to a row: pure functions from a row, and an answer, to an outcome."""
