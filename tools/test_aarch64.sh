#!/bin/bash
# Runs the tests of the kernels for aarch64, NEON among them, on a Linux machine of another kind under the emulator QEMU.
#
#   tools/test_aarch64.sh             with what is there
#   tools/test_aarch64.sh --install   and fetch what is missing: as root on Debian from apt, Rust's library for the target from rustup or apt
#
# Exit 0: the tests passed, or could not be run here ("skipped: <reason>"). Exit 1: they, or the build, failed. Exit 2: wrong usage.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

target=aarch64-unknown-linux-gnu
linker=aarch64-linux-gnu-gcc
# Where Debian has the target's libc.
sysroot=/usr/aarch64-linux-gnu
# Uses of the target what tests do: its libraries and a thread.
probe='fn main() { std::thread::spawn(|| println!("a thread runs")).join().unwrap() }'
tests=(rans:: float:: codec::planes::)

skip() {
    echo "skipped: $1"
    exit 0
}

has() {
    command -v "$1" >/dev/null 2>&1
}

# The emulator's name and arguments. Where an arm64 libc of Debian's is there too, the loader would mix one's parts with the other's.
emulator() {
    local qemu
    qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64) && echo "$qemu -L $sysroot -E LD_LIBRARY_PATH=$sysroot/lib"
}

# Compilers that may have the target: the one in use, and Debian's, which is of no use if it is older than the crate allows.
compilers() {
    command -v rustc
    echo /usr/bin/rustc
}

# The first compiler whose programs for the target can be linked and run here; none, with the reason in $reason.
find_compiler() {
    local rustc version oldest
    oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    has "$linker" || { reason="no $linker"; return 1; }
    read -ra runner < <(emulator) || { reason="no emulator qemu-aarch64"; return 1; }
    reason="no rustc"
    while read -r rustc; do
        version=$("$rustc" --version 2>/dev/null | cut -d ' ' -f 2) && [ -n "$version" ] || continue
        if [ "$(printf '%s\n' "$oldest" "$version" | sort -V | head -n 1)" != "$oldest" ]; then
            reason="$rustc $version is older than $oldest"
        elif ! echo "$probe" | "$rustc" --edition 2024 --target "$target" -C linker="$linker" -o "$scratch/probe" - 2>"$scratch/log"; then
            reason="$rustc $version does not build for $target: $(head -n 1 "$scratch/log")"
        elif ! timeout 60 "${runner[@]}" "$scratch/probe" >/dev/null 2>"$scratch/log"; then
            reason="${runner[0]} does not run what $rustc $version builds: $(head -n 1 "$scratch/log")"
        else
            compiler=$rustc
            return 0
        fi
    done < <(compilers)
    return 1
}

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
        -o Acquire::Retries=1 -o Acquire::http::Timeout=20 -o DPkg::Lock::Timeout=60 "$@" >"$scratch/log" 2>&1 \
        || echo "apt-get $1: $(tail -n 1 "$scratch/log")"
}

# Fetches one thing after the other until a compiler is found. What fails is told, and find_compiler has the last word.
install() {
    local is_debian_root=false
    if has apt-get && [ "$(id -u)" = 0 ]; then
        is_debian_root=true
    fi
    if ! { has "$linker" && emulator >/dev/null; }; then
        $is_debian_root || return
        apt update
        apt install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static
        has "$linker" && emulator >/dev/null || return
        find_compiler && return
    fi
    if has rustup; then
        timeout 90 rustup target add "$target" >"$scratch/log" 2>&1 || echo "rustup target add: $(tail -n 1 "$scratch/log")"
        find_compiler && return
    fi
    if $is_debian_root; then
        dpkg --add-architecture arm64
        apt update
        apt install rustc-web libstd-rust-web-dev:arm64
    fi
}

case "$*" in
    "") wants_install=false ;;
    --install) wants_install=true ;;
    *)
        echo "usage: $0 [--install]" >&2
        exit 2
        ;;
esac

[ "$(uname -s)" = Linux ] || skip "the emulator needs Linux"
[ "$(uname -m)" != aarch64 ] || skip "this machine is aarch64: the other tests run its kernels"
has cargo || skip "no cargo"

scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
if ! find_compiler && $wants_install; then
    install
fi
find_compiler || skip "$reason"
echo "$("$compiler" --version), $("${runner[0]}" --version | head -n 1)"

export RUSTC=$compiler
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$linker
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="${runner[*]}"
cargo_test=(cargo test --locked --target "$target" --lib)
"${cargo_test[@]}" --no-run || exit 1
# A filter that matches nothing passes.
for filter in "${tests[@]}"; do
    "${cargo_test[@]}" --quiet -- --list "$filter" 2>/dev/null | grep -q ': test$' || { echo "no test matches $filter" >&2; exit 1; }
done
"${cargo_test[@]}" -- "${tests[@]}" || exit 1
