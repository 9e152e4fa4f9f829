"""genad: generative anomaly detection with one contract for every kind of data."""

__version__ = "0.1.0"
