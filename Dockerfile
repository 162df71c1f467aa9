# One static file in an empty image: no shell, no library, no package to update.
#
#   docker build -t cruddur .
#   docker run --rm -p 127.0.0.1:4567:4567 -e CRUDDUR_PAGE_ALLOW_REMOTE=true cruddur

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# The cache mounts keep what was downloaded and compiled. A program that needs a loader would not start below.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked \
    && cp target/release/cruddur /cruddur \
    && file_kind=$(ldd /cruddur 2>&1 || true) \
    && case "$file_kind" in *"statically linked"* | *"not a dynamic executable"*) ;; *) echo "$file_kind" >&2; exit 1 ;; esac

FROM scratch
COPY --from=build /cruddur /cruddur
# Nobody in particular; there is no /etc/passwd to look a name up in.
USER 65532:65532
# All addresses of the container; which of them the host passes on is said with -p.
ENV CRUDDUR_LISTEN=0.0.0.0:4567
EXPOSE 4567
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["/cruddur", "health"]
ENTRYPOINT ["/cruddur"]
