"""Densities known only through distances, times or samples."""
