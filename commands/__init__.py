"""The command line: `headwater …`, one module a command, and what they share.

`__main__.py` knows the commands; `process.py` sets a process up (logs, signals, exit codes);
`stack.py` runs services, workers and server together; `up.py` and `demo.py` are that and little
more. Each other module is one command of its name.
"""
