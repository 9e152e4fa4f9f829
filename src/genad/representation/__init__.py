"""Detectors that judge a representation of the data: events of logs, texts, and what language models make of them."""
