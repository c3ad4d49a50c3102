"""A task: a chain of operators in one thread, with no queue between them.

* `task`: opens, reads, ends and closes; the only loop there is.
* `fusion`: turns the operators into compiled loops.
* `segment`: a compiled loop, and the ports by which records enter it.
* `expansion`: what flat maps and process functions need beside their loop.
* `live_operator`: an operator with its functions made and its tables.
* `failure`: what becomes of an exception.
* `counters`: what is counted, and how figures are read from it.
"""
