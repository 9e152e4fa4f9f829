"""The command line: ``genad detect data.csv`` and what belongs to it."""

from genad.cli.app import app, main

__all__ = ["app", "main"]
