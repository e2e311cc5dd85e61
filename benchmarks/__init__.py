"""Measures what interception costs: `python -m benchmarks`, or `make bench`. See docs/benchmarks.md.

Small C programs measure themselves; this package builds them, runs them natively and under each way of intercepting by
turns, and writes down what they say.
"""
