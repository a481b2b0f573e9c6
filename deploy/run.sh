#!/usr/bin/env bash
# Builds rdrived and serves a store with it: see usage() below.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
release=$root/build/release
demo=$root/build/demo
# shellcheck source=deploy/packages.sh
source "$root/deploy/packages.sh"

usage() {
  cat <<'END'
usage: deploy/run.sh [STORE] [rdrived option...]

Installs what is missing (Debian packages), builds a release into build/release, and serves STORE until Ctrl-C.
Without STORE it serves a demo store of this machine's Debian package index, made once at build/demo/packages.srd.
Options go to rdrived as they are (build/release/bin/rdrived --help lists them): --listen 127.0.0.1:50052
END
}

# One JSON line a package: its name, and its whole stanza. UTF-8 passes through; "&&" doubles a backslash in every awk.
stanzas_to_jsonl() {
  LC_ALL=C awk '
    BEGIN {
      RS = ""
      for (i = 1; i < 32; i++)
        if (i != 10)
          escape[sprintf("%c", i)] = sprintf("\\u%04x", i)
    }
    {
      gsub(/\\/, "&&")
      gsub(/"/, "\\\"")
      if (/[\001-\011\013-\037]/)
        for (c in escape)
          gsub(c, escape[c])
      if (!match($0, /(^|\n)Package: [^\n]+/))
        next
      name = substr($0, RSTART, RLENGTH)
      sub(/^\n?Package: /, "", name)
      gsub(/\n/, "\\n")
      print "{\"key\":\"" name "\",\"value\":\"" $0 "\\n\"}"
    }'
}

# Made in a folder that is renamed when all of it is there: an interrupted run leaves no half store behind.
demo_make() {
  local first
  first=$(apt-cache dumpavail | head -c 1 || true) # head ends early, which pipefail would take for a failure
  [[ -n $first ]] || as_root apt-get update -q
  echo "making $demo/packages.srd"
  rm -rf "$demo" "$demo.new"
  mkdir -p "$demo.new"
  # iconv: a third party's index may hold bytes that are not UTF-8, and JSON may not.
  apt-cache dumpavail | iconv -c -f UTF-8 -t UTF-8 | stanzas_to_jsonl |
    "$release/bin/rdrive" import "$demo.new/packages.srd" --format jsonl -
  mv -T "$demo.new" "$demo"
}

# hints STORE KEY ADDRESS: not indented, so that they can be pasted, Python included.
hints() {
  cat <<END

Serving $1 at $3 until Ctrl-C. To ask for a key, from another terminal:

# the file itself, without the daemon
$release/bin/rdrive get $1 $2

# Python (apt-get install python3-grpcio python3-protobuf)
mkdir -p $root/build/python && protoc -I $root/proto --python_out=$root/build/python $root/proto/rdrive/v1/*.proto
PYTHONPATH=$root/build/python python3 -c '
import grpc
from rdrive.v1 import reader_pb2 as v1
read = grpc.insecure_channel("$3").unary_unary("/rdrive.v1.DataStoreReaderService/Read",
    v1.ReadRequest.SerializeToString, v1.ReadResponse.FromString)
print(read(v1.ReadRequest(key=b"$2")).entry.payload.decode())'

# grpcurl
grpcurl -plaintext -import-path $root/proto -proto rdrive/v1/reader.proto \\
  -d '{"key":"'\$(printf $2 | base64)'"}' $3 rdrive.v1.DataStoreReaderService/Read

END
}

case ${1-} in
-h | --help)
  usage
  exit 0
  ;;
esac

store='' key=KEY
if (($#)) && [[ $1 != -* ]]; then
  store=$1
  shift
fi

packages_install "${build_packages[@]}"
cmake -S "$root" -B "$release" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF >/dev/null
cmake --build "$release" --target rdrived rdrive_tool

if [[ -z $store ]]; then
  store=$demo/packages.srd key=bash
  [[ -e $store ]] || demo_make
fi

# The address for the hints; where there are several, any will do.
address=${RDRIVED_LISTEN:-127.0.0.1:50051}
address=${address%%,*}
previous=''
for argument; do
  [[ $previous != --listen ]] || address=$argument
  [[ $argument != --listen=* ]] || address=${argument#*=}
  previous=$argument
done

hints "$store" "$key" "$address"
# exec: signals reach the daemon itself, and its exit status is ours.
exec "$release/bin/rdrived" "$store" "$@"
