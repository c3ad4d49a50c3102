"""A task: a chain of operators in one thread, with no queue between them.

* `task`: opens, reads, ends and closes; the only loop there is.
* `fusion`: turns the operators into compiled loops.
* `live_operator`: an operator with its functions made and its tables.
* `failure`: what becomes of an exception.
* `counters`: what is counted, and how figures are read from it.
"""
