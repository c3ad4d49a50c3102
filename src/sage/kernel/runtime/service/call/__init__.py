"""A call on its way: its path, its policies, its end."""
