"""Lets ``python -m genad.cli`` do what ``genad`` does."""

from genad.cli.app import main

main()
