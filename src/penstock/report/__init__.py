"""Views of a run: pure functions from facts to text, JSON and tables."""
