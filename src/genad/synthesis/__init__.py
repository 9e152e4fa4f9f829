"""Anomaly synthesis: make realistic anomalies, with their masks, from normal samples."""
