"""From the program to the plan: transformations → stream graph → job graph.

* `transformation`: what the API records, one call at a time.
* `stream_graph`: the whole of it, checked and named.
* `job_graph`: the stream graph cut into tasks.
* `explain`: any of it as text or as a picture.
"""
