# Helpers of ./test (sourced, not run): prerequisites, what tests install, stages and their counts.
# shellcheck shell=bash

CACHE="$PWD/.cache"
LOGS="$CACHE/test"

die() {
  echo "test: $*" >&2
  exit 1
}

# at_least WANT HAVE: compares dotted versions.
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

first_version() { grep -oE '[0-9]+(\.[0-9]+)+|[0-9]+' | head -n 1; }

# The list of the README, by name. All that is missing is named at once; nothing is skipped for it.
check_prerequisites() {
  local missing=() rust
  rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  want() { # want COMMAND NAME [VERSION COMMAND...]
    local command=$1 name=$2 version=${3:-} have
    if ! command -v "$command" >/dev/null 2>&1; then
      missing+=("$name")
    elif [ -n "$version" ]; then
      shift 3
      have=$("$@" 2>&1 | first_version) || have=0
      at_least "$version" "${have:-0}" || missing+=("$name (here is ${have:-none})")
    fi
  }
  want cargo "Rust $rust or newer" "$rust" rustc --version
  want cargo-fmt "rustfmt (rustup component add rustfmt)"
  want cargo-clippy "clippy (rustup component add clippy)"
  want cc "a C compiler (cc)"
  want c++ "a C++ compiler (c++)"
  want make make
  want cmake cmake
  want perl perl
  want python3 "Python 3.9 or newer" 3.9 python3 --version
  want java "Java 17 or newer" 17 java -version
  want mvn "Maven (mvn)"
  want go "Go 1.23 or newer" 1.23 go version
  want node "Node 20 or newer" 20 node --version
  want npm npm
  local tool
  for tool in chromium kcat strace mosquitto; do
    command -v "$tool" >/dev/null 2>&1 || command -v "/usr/sbin/$tool" >/dev/null 2>&1 ||
      command -v apt-get >/dev/null 2>&1 || missing+=("$tool, or apt-get to install it")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  printf 'test: missing: %s\n' "${missing[@]}" >&2
  die "install what is missing and start again; the README lists all of it"
}

# ensure_cargo_tool NAME: in cargo's own bin folder, so that it is built once a machine. A debug build: these tools
# run for seconds, and an optimised build of them takes minutes.
ensure_cargo_tool() {
  command -v "$1" >/dev/null 2>&1 && return 0
  echo "installing $1 (one time)"
  CARGO_PROFILE_DEV_DEBUG=0 cargo install "$1" --locked --debug
}

# ensure_apt COMMAND PACKAGE
ensure_apt() {
  command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] && return 0
  local sudo=()
  [ "$(id -u)" = 0 ] || sudo=(sudo -n)
  echo "installing $2 (one time)"
  "${sudo[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "$2"
  # A package may start its service, which would take the port the tests need.
  if [ "$2" = mosquitto ] && command -v systemctl >/dev/null 2>&1; then
    "${sudo[@]}" systemctl disable --now mosquitto || true
  fi
}

# ensure_venv NAME: .cache/venv-NAME from tests/requirements-NAME.txt, made again when that file changes.
ensure_venv() {
  local venv="$CACHE/venv-$1" list="tests/requirements-$1.txt"
  cmp -s "$list" "$venv/requirements" && return 0
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$list"
  cp "$list" "$venv/requirements"
}

# with_tmpfs SIZE COMMAND...: runs it with a small file system mounted at .cache/tmpfs, as root or in a namespace of its own.
with_tmpfs() {
  local size=$1 code=0
  shift
  mkdir -p "$CACHE/tmpfs"
  if [ "$(id -u)" = 0 ]; then
    mount -t tmpfs -o "size=$size" headwater-test "$CACHE/tmpfs"
    "$@" || code=$?
    umount "$CACHE/tmpfs"
    return "$code"
  fi
  export CACHE
  export -f "$1"
  unshare --user --map-root-user --mount bash -euc \
    'mount -t tmpfs -o "size=$1" headwater-test "$CACHE/tmpfs" && shift && "$@"' with_tmpfs "$size" "$@"
}

# counts LOG CODE: "PASSED FAILED" of a stage.
counts() {
  awk -v code="$2" '
    /^test result: / { for (i = 1; i < NF; i++) { if ($(i + 1) ~ /^passed/) p += $i; if ($(i + 1) ~ /^failed/) f += $i } }
    /^RESULT [0-9]+ passed, [0-9]+ failed/ { p += $2; f += $4 }
    END {
      if (p + f == 0) { if (code == 0) p = 1; else f = 1 }
      if (code != 0 && f == 0) f = 1
      print p + 0, f + 0
    }' "$1"
}

run_stages() {
  local stage code started passed failed all_passed=0 all_failed=0 broken=() begin=$SECONDS
  mkdir -p "$LOGS"
  for stage in "$@"; do
    started=$SECONDS
    # Not inside a condition: there bash would ignore the -e of the subshell.
    set +e
    (
      set -e
      "stage_$stage"
    ) >"$LOGS/$stage.log" 2>&1
    code=$?
    set -e
    read -r passed failed <<<"$(counts "$LOGS/$stage.log" "$code")"
    [ "$failed" = 0 ] || code=1
    all_passed=$((all_passed + passed)) all_failed=$((all_failed + failed))
    if [ "$code" = 0 ]; then
      printf '%-10s ok      %4d s  %d passed\n' "$stage" $((SECONDS - started)) "$passed"
    else
      broken+=("$stage")
      printf '%-10s FAILED  %4d s  %d passed, %d failed; the end of .cache/test/%s.log:\n' \
        "$stage" $((SECONDS - started)) "$passed" "$failed" "$stage"
      tail -n 60 "$LOGS/$stage.log" | sed 's/^/    /'
    fi
    sed -n 's/^NOTE /           note: /p' "$LOGS/$stage.log"
  done
  printf 'in %d s%s\n' $((SECONDS - begin)) "${broken:+, failed: ${broken[*]}}"
  echo "$all_passed passed, $all_failed failed"
  [ "$all_failed" = 0 ]
}
