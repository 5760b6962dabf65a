"""The command line: `headwater …`, one module a command, and what they share.

`__main__.py` knows the commands; `process.py` sets a process up (logs, signals, exit codes);
`stack.py` runs services, workers and server together; `up.py` and `demo.py` are that and little
more; `regions.py` has two such stacks that know of each other. Each other module is one command of
its name.
"""

import os

# Matrices here are small: threads would spend their time waiting for each other, and a process is
# one core's share of the work. This has to stand before numpy is imported.
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(_variable, "1")
