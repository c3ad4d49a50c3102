"""Runs a service process; see `service_process`."""

import sys

from sage.kernel.runtime.service.hosting.service_process import main

if __name__ == "__main__":
    sys.exit(main())
