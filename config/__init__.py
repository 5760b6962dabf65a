"""Settings, errors and the services' own configuration; every other folder reads from here.

`settings.py` is the one place where a setting is named (`overlay.py`: what a generation of the
store brings along; `tenants.py`: in what each tenant differs; `experiments.py`: what a file of
experiments may say); `errors.py` the one error tree; `ending.py` ends tasks.
`kafka_access.py` and `redis_address.py` say how the two are reached, in the clients' words, and
`redaction.py` what of it may be shown.
`services.py` and the files beside it start Kafka and Redis where none is given, and
`kafka_cluster.py`, `redis_cluster.py` and `redis_sentinel.py` several of them; `mirror.py` copies
what begins in one region's Kafka into another's.
Next: `streams/`, where events enter.
"""
