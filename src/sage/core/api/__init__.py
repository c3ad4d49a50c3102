"""The API: environments, streams, functions and aggregators.

It records what the user says as transformations (`sage.dataflow.graph`) and hands the plan to the
kernel. It moves no records itself.
"""
