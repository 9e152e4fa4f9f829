"""Detectors of series that expect each step from the steps before it."""
