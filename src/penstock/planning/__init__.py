"""Reads models and machines, and asks the planner for a placement. Loads no model."""
