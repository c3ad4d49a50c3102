"""Checkpoints: who decides about them, how they are kept, and how a failed job is started again.

`protocol` and `restart_strategy` decide and do nothing; `store` writes and reads. What is in a
snapshot is the business of the state backends and of the tasks.
"""
