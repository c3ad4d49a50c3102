"""How records go from slot to slot: routing, channels between processes, and what is said there."""
