"""Who offers which service, on this machine."""
