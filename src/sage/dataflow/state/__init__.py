"""State of functions: how it is declared, the live objects, and where it is kept on the heap.

Pure: the time comes in through `KeyedStore.now_ms`, and nothing here reads or writes files.
"""
