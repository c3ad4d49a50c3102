"""What is decided about a call: whether it may go, where, when again, and when it is given up.

Everything here is pure: no thread is started, no socket or queue is touched, the time comes from an
injected `Clock` and chance from an injected function that returns floats from 0 up to 1, such as
`random.random`. The call path asks, acts, and reports back what came of it.

* `retry`: which failed calls are tried again and when; the budget that bounds them.
* `breaker`: calls to a service that keeps failing are refused at once; `failure_window` under it.
* `limits`: how many calls and bytes may be under way, and how many may begin per second.
* `cache`: results of earlier calls; `cache_key`: which calls are the same.
* `hedge`: when to send a second request for a call that takes unusually long.
* `balancer`: which replica takes the call.
* `call_statistics`: what became of the calls, over sliding windows; `latency_histogram` under it.
* `error_kinds`: telling failures apart by class or by name.
* `call_options`: what can be said about one call, laid over what is said about the service.
* `policy_config`: the settings of all of them for a service, as a file or keywords give them.
* `checks`: the checks of values that the settings share.

An object that is shared between threads says so; the frozen settings always may be. A policy that is
not in use has no object: the call path asks `is None`, and pays nothing more for it.
"""
