# shellcheck shell=bash
# What rdrive needs from Debian, in one place. Sourced by deploy/run.sh and tests/run.sh.

# gcc brings the sanitizers' libraries with it; no C++ compiler is needed. libc6-dev is only a recommendation of gcc's.
# shellcheck disable=SC2034 # used by those who source this
build_packages=(
  gcc libc6-dev cmake ninja-build pkg-config
  libgrpc-dev libprotobuf-c-dev protobuf-c-compiler protobuf-compiler
  libxxhash-dev libdeflate-dev libjansson-dev nettle-dev libssl-dev
)
# The second line is the gates' (tests/check.sh), the third the fuzzers' (tests/fuzz).
# shellcheck disable=SC2034
test_packages=(
  libcmocka-dev python3 python3-grpcio python3-protobuf python3-hpack protobuf-compiler-grpc openssl
  clang-format clang-tidy cppcheck shellcheck
  clang libclang-rt-14-dev
)

# packages_die MESSAGE...: says why on stderr, and ends the script.
packages_die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# as_root COMMAND...: runs it as root, through sudo where that is needed.
as_root() {
  if ((EUID == 0)); then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    packages_die "'$*' needs root, and there is no sudo: run it as root, then come back"
  fi
}

# packages_install PACKAGE...: installs those that are missing. Asks dpkg first: where nothing is missing, neither apt,
# nor root, nor a network is needed.
packages_install() {
  command -v apt-get >/dev/null || packages_die 'this script installs with apt: it needs Debian 12 or a relative of it'
  local present package missing=()
  present=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null || true)
  for package; do
    grep -qx "installed $package" <<<"$present" || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  echo "installing: ${missing[*]}"
  as_root apt-get update -q
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
}
