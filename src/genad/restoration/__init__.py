"""Anomaly restoration: what an anomalous sample should have looked like."""
