"""Run the manager, the process that owns the counters: the same as `counter manager`."""

import sys

from counter.cli import main

if __name__ == "__main__":
    main(["manager", *sys.argv[1:]])
