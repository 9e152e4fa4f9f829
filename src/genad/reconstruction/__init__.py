"""Detectors driven by reconstruction."""
