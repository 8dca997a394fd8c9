# The last stage is the image: an environment that another stage has made, hash by hash, and nothing to build with.
#
# A tag moves. Who releases pins it by the digest that its registry shows for it:
#   docker build --build-arg BASE=python:3.11-slim-bookworm@sha256:… .
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements.lock ./
# The runtime section alone: neither an extra nor a development tool belongs in an image.
RUN sed '/^# == embedded/,$d' requirements.lock > runtime.lock \
 && python -m venv --without-pip /opt/gateway \
 && python -m pip --python /opt/gateway/bin/python install --no-compile --require-hashes --only-binary :all: -r runtime.lock
# The build backend is pinned by the development section; it stays in this stage.
RUN awk '/^flit-core==/,/[^\\]$/' requirements.lock > build.lock \
 && python -m venv --without-pip /opt/build \
 && python -m pip --python /opt/build/bin/python install --require-hashes --only-binary :all: -r build.lock
COPY pyproject.toml README.md LICENSE ./
COPY gateway ./gateway
RUN python -m pip --python /opt/build/bin/python wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && python -m pip --python /opt/gateway/bin/python install --no-compile --no-deps --no-index dist/*.whl
# The root file system may be read-only, so bytecode is made now; by hash and unchecked, for a copy may change times.
RUN python -m compileall -q -f --invalidation-mode unchecked-hash /opt/gateway/lib

# What the image holds, in words for scanners: docker build --target sbom --output type=local,dest=. .
FROM build AS describe
COPY requirements-sbom.lock ./
RUN python -m venv --without-pip /opt/sbom \
 && python -m pip --python /opt/sbom/bin/python install --require-hashes --only-binary :all: -r requirements-sbom.lock \
 && /opt/sbom/bin/cyclonedx-py environment --output-reproducible --output-file sbom.cdx.json \
    --pyproject pyproject.toml /opt/gateway/bin/python

FROM scratch AS sbom
COPY --from=describe /build/sbom.cdx.json /

FROM ${BASE}
# The base brings what installs software, which nobody needs here, and a standard library without bytecode.
RUN rm -rf /usr/local/bin/pip* /usr/local/bin/wheel /usr/local/lib/python3.*/ensurepip \
    /usr/local/lib/python3.*/site-packages/* \
 && python -m compileall -q -f --invalidation-mode unchecked-hash /usr/local/lib/python3.*
COPY --from=build /opt/gateway /opt/gateway
COPY policies /etc/gateway/policies
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GATEWAY_LISTEN=0.0.0.0:8080 \
    GATEWAY_ADMIN_LISTEN=0.0.0.0:9090 \
    GATEWAY_POLICIES=/etc/gateway/policies
# Whatever it needs of the base, time zones among it, is there.
RUN eligibility-gateway check
EXPOSE 8080 9090
# By number: Kubernetes cannot tell whether a name is root.
USER 65532:65532
STOPSIGNAL SIGTERM
# Kubernetes has probes of its own and does not look at this.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["eligibility-gateway", "healthcheck"]
ENTRYPOINT ["eligibility-gateway"]
CMD ["serve"]
# Last, for they differ from build to build. CREATED is a time as in RFC 3339.
ARG BASE
ARG VERSION=0.1.0
ARG REVISION=
ARG CREATED=
LABEL org.opencontainers.image.title="Eligibility Gateway" \
      org.opencontainers.image.description="A reverse proxy for Optum's Enhanced Eligibility API" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${BASE}"
