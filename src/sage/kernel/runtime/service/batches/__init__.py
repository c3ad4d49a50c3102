"""How calls become batches for methods that work on many at once."""
