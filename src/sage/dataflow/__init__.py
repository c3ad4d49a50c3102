"""What a job *is*: graphs, operators and the contracts of functions.

Pure: no threads, sockets, clocks, processes or files. How a job *runs* lives in `sage.kernel`.
"""
