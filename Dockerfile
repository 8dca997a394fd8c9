# syntax=docker/dockerfile:1
# Two stages: the first installs what the lock file names, hash by hash; the second holds nothing but the result.
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements.lock ./
# The runtime section alone: neither the bundled Valkey nor development tools belong in an image.
RUN sed '/^# == embedded/,$d' requirements.lock > runtime.lock \
 && python -m venv --without-pip /opt/gateway \
 && python -m pip --python /opt/gateway/bin/python install --require-hashes --only-binary :all: -r runtime.lock
# The build backend is pinned by the development section; it stays in this stage.
RUN awk '/^flit-core==/,/[^\\]$/' requirements.lock > build.lock \
 && python -m pip install --require-hashes -r build.lock
COPY pyproject.toml README.md LICENSE ./
COPY gateway ./gateway
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && python -m pip --python /opt/gateway/bin/python install --no-deps --no-index dist/*.whl

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="Eligibility Gateway" \
      org.opencontainers.image.description="A reverse proxy for Optum's Enhanced Eligibility API" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/gateway /opt/gateway
COPY policies /etc/gateway/policies
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GATEWAY_LISTEN=0.0.0.0:8080 \
    GATEWAY_ADMIN_LISTEN=0.0.0.0:9090 \
    GATEWAY_POLICIES=/etc/gateway/policies
EXPOSE 8080 9090
USER 65532:65532
ENTRYPOINT ["eligibility-gateway"]
CMD ["serve"]
