"""Detectors whose model of what is normal is a language model."""
