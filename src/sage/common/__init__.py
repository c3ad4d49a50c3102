"""The ground floor: errors, clock, configuration, ids and logging.

Everything above may use it; it imports nothing of the rest of SAGE.
"""
