#!/usr/bin/env bash
# What the Makefile needs of the system. As root on Debian, installs the one part that Debian ships apart from python3.
#
#   tools/check_system.sh [PYTHON]
set -euo pipefail
python=${1:-python3}

fail() {
    echo "error: $*" >&2
    exit 1
}

command -v cargo >/dev/null || fail "cargo is not installed: install Rust with rustup, https://rustup.rs"
command -v cc >/dev/null || fail "there is no C compiler, which Rust links with: on Debian, apt-get install gcc libc6-dev"
command -v "$python" >/dev/null || fail "$python is not installed: on Debian, apt-get install python3 python3-venv"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "Python 3.11 or later is needed, and $python is $("$python" --version)"

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing python3-venv"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y python3-venv >/dev/null
    fi
    "$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python cannot make virtual environments: on Debian, sudo apt-get install python3-venv"
fi
