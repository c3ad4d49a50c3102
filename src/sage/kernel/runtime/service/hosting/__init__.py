"""What makes, runs, watches and ends services, in this process, others or Ray actors."""
