# One image for every role: `run` by default, any other responses-worker command as its arguments.
# At run time it needs no shell, no root, no writable file system and no capability.
#
# Reproducible: every package is pinned by hash, byte code holds no times. Build with `--timestamp 0` (buildah) or
# SOURCE_DATE_EPOCH=0 and `--output rewrite-timestamp=true` (buildx), and give releases a base by digest.
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ONLY_BINARY=:all: \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONHASHSEED=0
WORKDIR /src
COPY requirements.lock requirements-worker.lock ./
# Two environments: /build has pip and the build backend and stays behind, /app is what ships and has neither.
RUN python -m venv /build \
 && python -m venv --without-pip /app \
 && awk '/^[a-z]/ { keep = /^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/ } keep' requirements.lock > build.lock \
 && /build/bin/pip install --require-hashes --requirement build.lock \
 && /build/bin/pip --python /app/bin/python install --no-compile --require-hashes \
      --requirement requirements-worker.lock
COPY pyproject.toml README.md LICENSE ./
COPY api_contracts api_contracts
COPY worker worker
# The stand-ins for development and what the demo plays stay out: .dockerignore leaves them behind.
# A read-only file system cannot keep byte code, so it is made here; hashes instead of times keep it reproducible.
RUN mkdir examples \
 && /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /build/bin/pip --python /app/bin/python install --no-compile --no-deps /wheels/*.whl \
 && /app/bin/python -m compileall -q --invalidation-mode unchecked-hash /app

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="responses-worker" \
      org.opencontainers.image.description="Turns queued generation requests into published results, inside a shared rate budget." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /app /app
ENV PATH=/app/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
EXPOSE 8080
ENTRYPOINT ["/app/bin/responses-worker"]
CMD ["run"]
