"""Reconstruction by more than one family, section 1.1.5 of the survey."""
