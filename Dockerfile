# One static file in an empty image, with no shell, no library and no package to update.
#
#   docker build -t cruddur .
#   docker run --rm -p 127.0.0.1:4567:4567 -e CRUDDUR_PAGE_ALLOW_REMOTE=true cruddur

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# The cache mounts keep downloaded and compiled files between builds. The check for static linking
# is needed because the empty image below has no loader.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked \
    && cp target/release/cruddur /cruddur \
    && mkdir /spool \
    && file_kind=$(ldd /cruddur 2>&1 || true) \
    && case "$file_kind" in *"statically linked"* | *"not a dynamic executable"*) ;; *) echo "$file_kind" >&2; exit 1 ;; esac

FROM scratch
COPY --from=build /cruddur /cruddur
# A new volume at this path belongs to the user below, as the directory does.
COPY --from=build --chown=65532:65532 /spool /spool
# A user without privileges. It is a number because the image has no /etc/passwd with names.
USER 65532:65532
# All addresses of the container. `docker run -p` chooses which port of the host leads here.
ENV CRUDDUR_LISTEN=0.0.0.0:4567
# The C library keeps less freed memory: see "Memory" in docs/reliability.md.
ENV MALLOC_ARENA_MAX=2 MALLOC_MMAP_THRESHOLD_=131072 MALLOC_TRIM_THRESHOLD_=131072
EXPOSE 4567
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["/cruddur", "health"]
ENTRYPOINT ["/cruddur"]
