"""Detectors driven by density."""
