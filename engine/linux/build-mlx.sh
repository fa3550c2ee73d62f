#!/usr/bin/env bash
# Makes the MLX folder that engine/linux/mlx-sys links against. Idempotent: a finished folder is
# left alone. `cargo xtask setup` calls it; so may a person.
#
#   build-mlx.sh DIR            make what is missing
#   build-mlx.sh DIR --check    only tell, by exit status, whether the folder is finished
#
#   DIR/wheel/            the unzipped mlx-cpu wheel (Linux): mlx/lib/libmlx.so, mlx_cpu.libs/
#   DIR/mlxc/include/     the headers of mlx-c
#   DIR/mlxc/lib/         Linux: libmlxc.so (mlx-c, with OpenBLAS ahead of MLX); Mac: archives
#   DIR/stamp             written last: says which versions the folder holds, and where it lies
#
# Needs: a C++ compiler, cmake, cargo, python3 with pip; on Linux also OpenBLAS, and fmt where the
# compiler has no std::format (gcc < 13). Building what uses the folder needs libclang.
set -euo pipefail

MLX_VERSION=0.32.2 # the version that mlx-c 0.7.0 pins
MLXC_VERSION=0.7.0 # the version inside mlx-sys 0.7.0
RECIPE=2           # raise when this script, or a source beside it, changes what is made

say() { printf 'mlx: %s\n' "$*"; }
fail() { printf 'mlx: error: %s\n' "$*" >&2; exit 1; }
need() { command -v "$1" >/dev/null 2>&1 || fail "$1 is missing: $2"; }

[ $# -ge 1 ] || fail "usage: build-mlx.sh DIR [--check]"
CHECK=${2:-}
[ -z "$CHECK" ] || [ -d "$1" ] || exit 1
mkdir -p "$1"
DIR=$(cd "$1" && pwd -P)
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
SYSTEM=$(uname -s)
STAMP="mlx $MLX_VERSION, mlx-c $MLXC_VERSION, recipe $RECIPE, $SYSTEM $(uname -m), $DIR"

if [ -f "$DIR/stamp" ] && [ "$(cat "$DIR/stamp")" = "$STAMP" ]; then
    say "ready in $DIR"
    exit 0
fi
[ -z "$CHECK" ] || exit 1
# Two builds at once would trip over each other; where flock is missing, the caller sees to it.
if command -v flock >/dev/null 2>&1; then
    exec 8>"$DIR/.lock"
    flock 8
    if [ -f "$DIR/stamp" ] && [ "$(cat "$DIR/stamp")" = "$STAMP" ]; then
        say "ready in $DIR"
        exit 0
    fi
fi
rm -f "$DIR/stamp"

need cmake "install cmake (Debian: apt-get install cmake; Mac: brew install cmake)"
need c++ "install a C++ compiler (Debian: apt-get install g++; Mac: xcode-select --install)"
need cargo "install Rust"

LOG="$DIR/build.log"
: >"$LOG"
# Runs a step with its output in the log; shows the log's end when it fails.
step() {
    local title=$1
    shift
    say "$title"
    "$@" >>"$LOG" 2>&1 || {
        tail -n 30 "$LOG" >&2
        fail "$title: failed; the whole log is $LOG"
    }
}

fetch_wheel() {
    need python3 "install python3 and its pip (Debian: apt-get install python3-pip)"
    python3 -m pip --version >/dev/null 2>&1 ||
        fail "python3 has no pip: install it (Debian: apt-get install python3-pip)"
    rm -rf "$DIR/download" "$DIR/wheel" "$DIR/wheel.part"
    step "fetching mlx-cpu $MLX_VERSION" python3 -m pip download --quiet --no-deps \
        --disable-pip-version-check --only-binary :all: --dest "$DIR/download" \
        "mlx-cpu==$MLX_VERSION"
    step "unpacking mlx-cpu $MLX_VERSION" \
        python3 -m zipfile -e "$DIR"/download/mlx_cpu-*.whl "$DIR/wheel.part"
    mv "$DIR/wheel.part" "$DIR/wheel"
    rm -rf "$DIR/download"
    [ -f "$DIR/wheel/mlx/lib/libmlx.so" ] || fail "the wheel holds no mlx/lib/libmlx.so"
}

# The mlx-c sources lie inside the registry's own mlx-sys package; cargo fetches and verifies it.
find_sources() {
    say "finding the sources of mlx-c $MLXC_VERSION"
    local manifest
    manifest=$(cargo metadata --quiet --locked --format-version 1 \
        --manifest-path "$HERE/mlx-c-source/Cargo.toml" |
        tr ',' '\n' | sed -n 's/.*"manifest_path":"\([^"]*mlx-sys-0\.7\.0\/Cargo\.toml\)".*/\1/p' |
        head -n 1)
    SOURCE=${manifest%/Cargo.toml}/src/mlx-c
    [ -f "$SOURCE/CMakeLists.txt" ] || fail "cargo shows no mlx-sys $MLXC_VERSION with mlx-c inside"
}

# The door through which this project's own CPU kernels enter MLX's graph.
compile_door() {
    cp "$HERE/host-kernel.h" "$DIR/mlxc/include/mlx/c/"
    step "compiling the host kernels' door" c++ -std=c++20 -O2 -fPIC -c \
        -include "$HERE/std-format.h" -I"$DIR/mlxc/include" "$@" \
        -o "$DIR/build/host-kernel.o" "$HERE/host-kernel.cpp"
}

build_linux() {
    [ -f "$DIR/wheel/mlx/lib/libmlx.so" ] || fetch_wheel
    echo 'int main() { return 0; }' |
        c++ -x c++ - -lopenblas -o /dev/null 2>>"$LOG" ||
        fail "OpenBLAS is missing: install it (Debian: apt-get install libopenblas-dev)"
    c++ -std=c++20 -include "$HERE/std-format.h" -x c++ -fsyntax-only /dev/null 2>>"$LOG" ||
        fail "this compiler has no std::format and fmt is missing: apt-get install libfmt-dev"
    find_sources
    rm -rf "$DIR/build" "$DIR/mlxc"
    step "configuring mlx-c" cmake -S "$SOURCE" -B "$DIR/build" -DCMAKE_BUILD_TYPE=Release \
        -DMLX_C_USE_SYSTEM_MLX=ON -DMLX_C_BUILD_EXAMPLES=OFF \
        -DCMAKE_PREFIX_PATH="$DIR/wheel/mlx" -DCMAKE_INSTALL_PREFIX="$DIR/mlxc" \
        -DCMAKE_INSTALL_LIBDIR=lib -DCMAKE_CXX_FLAGS="-include $HERE/std-format.h"
    step "compiling mlx-c (about a minute)" \
        cmake --build "$DIR/build" --parallel "${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}"
    step "installing mlx-c" cmake --install "$DIR/build"
    compile_door -I"$DIR/wheel/mlx/include"
    # OpenBLAS ahead of MLX: the wheel brings the reference BLAS, which is 40 times slower, and the
    # dynamic linker takes the first it meets. The name is the absolute path, so that every
    # executable finds the library where it lies.
    step "linking libmlxc.so" c++ -shared -o "$DIR/mlxc/lib/libmlxc.so" \
        -Wl,-soname,"$DIR/mlxc/lib/libmlxc.so" \
        -Wl,--whole-archive "$DIR/mlxc/lib/libmlxc.a" -Wl,--no-whole-archive \
        "$DIR/build/host-kernel.o" \
        -Wl,--no-as-needed -lopenblas -L"$DIR/wheel/mlx/lib" -lmlx \
        -Wl,--disable-new-dtags -Wl,-rpath,"$DIR/wheel/mlx/lib"
    rm -rf "$DIR/build"
}

# Not built by CI. MLX comes from its git host, as upstream's build script has it, with Metal.
build_mac() {
    find_sources
    rm -rf "$DIR/mlxc"
    step "configuring mlx-c and MLX" cmake -S "$SOURCE" -B "$DIR/build" \
        -DCMAKE_BUILD_TYPE=Release -DMLX_C_BUILD_EXAMPLES=OFF -DMLX_BUILD_METAL=ON \
        -DMLX_BUILD_ACCELERATE=ON -DMLX_METAL_PATH="$DIR/metal" \
        -DCMAKE_INSTALL_PREFIX="$DIR/mlxc" -DCMAKE_INSTALL_LIBDIR=lib
    step "compiling MLX (several minutes)" \
        cmake --build "$DIR/build" --parallel "$(sysctl -n hw.ncpu)"
    step "installing mlx-c and MLX" cmake --install "$DIR/build"
    compile_door
    step "adding the door" ar r "$DIR/mlxc/lib/libmlxc.a" "$DIR/build/host-kernel.o"
    find "$DIR/build" -name 'libgguflib.a' -exec cp {} "$DIR/mlxc/lib/" \;
}

case $SYSTEM in
Linux) build_linux ;;
Darwin) build_mac ;;
*) fail "MLX runs on Linux and on Macs; this is $SYSTEM" ;;
esac

printf '%s\n' "$STAMP" >"$DIR/stamp"
say "ready in $DIR"
