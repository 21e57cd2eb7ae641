# One image for every engine, in two sizes; docs/image.md says how to build and check it.
#
#   docker build --target serving .    what answers for a model, and nothing else
#   docker build --target training .   every step of every pipeline
#
# Plain instructions only, no BuildKit, so that any builder takes it; one that knows no better builds
# every stage above the wanted one, so the small one comes first.

# Give it by digest, python:3.11-slim@sha256:..., wherever the image is to be kept.
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS packages
# What the index lacks may lie in wheels/, such as the CPU build of torch. The places of an index
# come from the builder (its proxy, its pip settings), never from an argument: those are kept in the
# image's history.
ENV UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1 UV_FIND_LINKS=/build
RUN python -m pip install --no-cache-dir --root-user-action=ignore uv==0.13.8
WORKDIR /build

FROM packages AS serving-packages
COPY requirements-serving.lock wheel[s] ./
RUN python -m venv --without-pip /opt/venv \
    && python -m uv pip install --python /opt/venv/bin/python --requirement requirements-serving.lock

FROM ${BASE_IMAGE} AS base
# Nothing but /tmp need be writable; USER is for libraries that ask who runs them. ONNX Runtime's
# telemetry is on by default.
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    HOME=/tmp USER=lightbox LIGHTBOX_HOME=/tmp/lightbox ORT_DISABLE_TELEMETRY=1
WORKDIR /app
ENTRYPOINT ["python", "-m", "components"]

FROM base AS serving
COPY --from=serving-packages /opt/venv /opt/venv
COPY lineage lineage
COPY imaging imaging
COPY serving serving
COPY components components
# By content, because an image's files carry the dates of whoever unpacks it.
RUN python -m compileall -q --invalidation-mode checked-hash /app
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=2s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/ping')"]
# SageMaker wants root (RUN_AS=0:0); everywhere else nobody in particular is enough.
ARG RUN_AS=10001:10001
USER ${RUN_AS}
CMD ["serve"]
ARG BASE_IMAGE
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="lightbox-serving" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"

FROM packages AS training-packages
COPY requirements.lock pyproject.toml wheel[s] ./
# What the project needs, at the lock's pins; the lock's tools for developers stay out.
RUN python -m venv --without-pip /opt/venv \
    && python -m uv pip install --python /opt/venv/bin/python \
        --requirement pyproject.toml --constraint requirements.lock

FROM base AS training
COPY --from=training-packages /opt/venv /opt/venv
COPY requirements.lock pyproject.toml ./
COPY configs configs
COPY lineage lineage
COPY imaging imaging
COPY registry registry
COPY serving serving
COPY training training
COPY evaluation evaluation
COPY monitoring monitoring
COPY components components
COPY pipelines pipelines
RUN python -m compileall -q --invalidation-mode checked-hash /app
ARG RUN_AS=10001:10001
USER ${RUN_AS}
CMD ["--help"]
ARG BASE_IMAGE
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="lightbox" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
