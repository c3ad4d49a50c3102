"""Services: objects that operators share and call, wherever they live.

One path for every call, so that no policy is silently left out:

    proxy → ServiceManager → middleware → policies → channel → service task → method → back

* `service_caller`: `ServiceManager` and the proxies.
* `call/`: a call on its way, in however many attempts; the future of its result.
* `policy/`: deadlines, retries, breakers, limits, caches; pure.
* `channel/`: what requests and responses are, and how they travel: within the process, through queues,
  on Ray.
* `*_service_task`: a service with its life: in this process, in another one, on Ray.
* `hosting/`: what makes, runs, watches and ends services.
* `batches/`: how calls become batches, for methods marked with `batching.batch`.
* `registry/`, `service_registry`: who offers which service, on this machine.
* `config/`: the settings of services, and how they are read from a file.
* `middleware`, `tracing`, `trace`, `prometheus`: what a program can put around calls, and see of them.
"""
