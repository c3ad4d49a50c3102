"""`python -m sage.kernel.runtime.worker`: see `worker_process`."""

from __future__ import annotations

import sys

from sage.kernel.runtime.worker.worker_process import main

if __name__ == "__main__":
    sys.exit(main())
