"""Connectors: implementations of `Source` and `Sink`, and nothing else.

What talks to the outside lives here: collections, live functions, files, sockets. It imports
`sage.dataflow.function` and `sage.common` only, never the kernel or the API: a connector is a guest
of the contracts, as one written by a user is.
"""
