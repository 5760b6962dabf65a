# One image for workers, server and topics, run by a user without rights. Packages have the
# versions and checksums of requirements.lock; what only development needs stays out.
FROM python:3.11-slim AS build
WORKDIR /app
ENV UV_NO_CACHE=1 VIRTUAL_ENV=/venv
RUN pip install --no-cache-dir uv==0.13.9 && python -m venv /venv
COPY requirements.lock pyproject.toml README.md ./
COPY benchmarks benchmarks
COPY commands commands
COPY config config
COPY processors processors
COPY serving serving
COPY store store
COPY streams streams
RUN uv pip install --constraint requirements.lock setuptools \
 && uv pip install --constraint requirements.lock --no-build-isolation .

FROM python:3.11-slim
RUN useradd --uid 10001 --create-home headwater
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
USER headwater
WORKDIR /home/headwater
# Compiled once here, not by every container that starts.
RUN python -c "import processors.worker, serving.app"
EXPOSE 8080
CMD ["headwater", "serve"]
