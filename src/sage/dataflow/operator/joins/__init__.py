"""Joins: records of two streams that belong together.

Two streams meet by key and window (`window_join`), by key and distance in time (`interval_join`), by
key and nearest time (`asof_join`), or by a function of the user's (`keyed_join`). One stream meets a
table or a service in `lookup_join`. The semantics are those of Apache Flink where it has such a join,
and of pandas' `merge_asof`.
"""
