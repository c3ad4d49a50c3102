"""Benchmarks: `make bench`, or `python -m benchmarks [NAME …]`.

They compare in one run, take turns, and print medians and ratios. They assert nothing.
"""
