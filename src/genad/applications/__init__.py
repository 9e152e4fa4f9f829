"""Whole jobs, from the user's data to an answer."""
