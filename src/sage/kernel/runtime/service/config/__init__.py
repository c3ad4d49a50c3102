"""The settings of services, and how they are read from a file."""
