"""How a job runs: the data plane in `runtime`, the control plane in `jobmanager`."""
