"""The data plane: what moves records through operators."""
