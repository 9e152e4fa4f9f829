"""Diffusion-based reconstruction, section 1.1.4 of the survey."""
