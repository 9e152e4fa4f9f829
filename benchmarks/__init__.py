"""Benchmarks: each file answers one question and writes its figures to ``results/``.

Run ``python -m benchmarks`` for all, or ``python -m benchmarks tables series`` for some.
"""
