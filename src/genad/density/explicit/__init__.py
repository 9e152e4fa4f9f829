"""Densities that can be evaluated."""
