# syntax=docker/dockerfile:1

# One image with the three programs: worker (what runs by default), ingest and
# wazzupctl. Its root file system holds nothing else but certificates, so it can
# be read-only; there is no shell.

FROM --platform=$BUILDPLATFORM golang:1.26.8-alpine AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
# The folder is what EMBEDDED_NATS=/data stores in; a volume that is mounted
# there takes over its owner.
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags='-s -w' -o /out/ ./cmd/worker ./cmd/ingest ./cmd/wazzupctl \
 && mkdir /data

FROM scratch
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="wazzup-relay" \
      org.opencontainers.image.source="https://github.com/wazzup-relay/wazzup-relay" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build --chown=65532:65532 /data /data
COPY --from=build /out/ /usr/local/bin/
ENV PATH=/usr/local/bin
# A number, so that runAsNonRoot can be checked without a user database.
USER 65532:65532
# Health is /healthz and /readyz at ADMIN_ADDR: no HEALTHCHECK, since it would need
# a client in the image, and since orchestrators probe by HTTP themselves.
CMD ["worker"]
