"""Reads models and machines, and asks the core's planner where the one goes on the other. Loads nothing."""
