"""How a call reaches a service in this process, another one or on Ray; how its answer comes back."""
