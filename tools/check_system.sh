#!/usr/bin/env bash
# What the Makefile needs of the system. As root on Debian, installs what a linker and virtual environments need beside Rust and python3.
#
#   tools/check_system.sh [PYTHON]
set -euo pipefail
python=${1:-python3}

fail() {
    echo "error: $*" >&2
    exit 1
}

# The Debian packages that would help.
missing() {
    command -v cc >/dev/null || echo gcc libc6-dev
    "$python" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
}

command -v cargo >/dev/null || fail "cargo is not installed: install Rust with rustup, https://rustup.rs"
command -v "$python" >/dev/null || fail "$python is not installed: on Debian, apt-get install python3 python3-venv"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "Python 3.11 or later is needed, and $python is $("$python" --version)"

read -rd '' -a packages < <(missing) || true
if [ ${#packages[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing ${packages[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}" >/dev/null
fi
command -v cc >/dev/null || fail "there is no C compiler, which Rust links with: on Debian, sudo apt-get install gcc libc6-dev"
"$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python cannot make virtual environments: on Debian, sudo apt-get install python3-venv"
