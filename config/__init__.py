"""Settings, errors and the services' own configuration; every other folder reads from here.

`settings.py` is the one place where a setting is named (`overlay.py`: what a generation of the
store brings along); `errors.py` the one error tree; `ending.py` ends tasks.
`services.py` and the files beside it start Kafka and Redis where none is given, and
`kafka_cluster.py` and `redis_sentinel.py` several of them.
Next: `streams/`, where events enter.
"""
