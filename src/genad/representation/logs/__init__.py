"""Plain detectors of logs: the next event, counts of templates, embeddings of lines."""
