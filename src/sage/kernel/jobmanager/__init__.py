"""The control plane: the state of a job, and what starts, watches and stops its tasks."""
