"""Lets ``python -m genad`` do what ``genad`` does."""

from genad.cli.app import main

main()
