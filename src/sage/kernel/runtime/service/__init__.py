"""Services: objects that operators share and call, wherever they live.

One path for every call, so that no policy is silently left out:

    proxy → ServiceManager → middleware → policies → channel → service task → method → back

* `service_message`: what a request and a response are, and how they are written into a queue.
* `service_future`: a call in flight.
* `service_factory`: how a service is made, and its options.
* `service_executor`: calls the methods of a live service.
* `*_service_task`: a service with its life: in this process, in another one.
* `response_lane`: how answers come back to a process, without a thread per call.
* `service_caller`: `ServiceManager` and the proxies.
* `policy/`: deadlines, retries, breakers, limits, caches; pure.
"""
