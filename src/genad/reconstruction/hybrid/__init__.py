"""Detectors that join several families."""
