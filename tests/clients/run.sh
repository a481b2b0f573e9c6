#!/usr/bin/env bash
# Real clients in five languages against a real daemon: see usage() below.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=tests/clients out=build/clients
bin=${RDRIVE_BIN:-build/test/bin}
languages=(python go node rust java)
run_seconds=120 # what takes this long hangs

usage() {
  cat <<END
usage: tests/clients/run.sh [LANGUAGE...]

Builds the clients (${languages[*]}; all unless named), each with stubs made of proto/ in its language's usual way and
with the versions that its lock file names; makes a store of what $here/table.json lists; serves it with rdrived; and
lets each client read it and compare. The last line is "clients: N passed, N failed".
What is built lies in $out; what is downloaded stays where each language's tools keep it. The programs are those of
$bin (RDRIVE_BIN names another folder).
A language whose tools are missing or too old is skipped; where CI=true it fails.
END
}

# at_least COMMAND MINIMUM [ARGUMENT...]: COMMAND is there and prints no older version. Says what is missing.
at_least() {
  local command=$1 minimum=$2 said found=0
  shift 2
  command -v "$command" >/dev/null || {
    echo "there is no $command"
    return 1
  }
  said=$("$command" "${@:---version}" 2>&1 | sed -E 's/\x1b\[[0-9;]*m//g') || true # Maven prints it in bold
  [[ ! $said =~ [0-9]+(\.[0-9]+)* ]] || found=${BASH_REMATCH[0]}
  [[ $(printf '%s\n' "$minimum" "$found" | sort -V | head -n 1) == "$minimum" ]] || {
    echo "$command is $found, and $minimum or newer is needed"
    return 1
  }
}

tools() { # LANGUAGE
  case $1 in
  python)
    at_least python3 3.10 || return 1
    python3 -c 'import ensurepip, venv' 2>/dev/null || {
      echo 'python3 has no venv'
      return 1
    }
    ;;
  go) at_least go 1.21 version && at_least protoc 3.12 ;; # go fetches the newer one that go.mod asks for by itself
  node) at_least node 18 && at_least npm 8 ;;
  rust) at_least cargo 1.88 && at_least protoc 3.12 ;;
  java) at_least java 17 -version && at_least mvn 3.6 ;;
  esac
}

protos() {
  printf '%s\n' proto/rdrive/v1/*.proto
}

build_python() {
  local venv=$out/python/venv stubs=$out/python/stubs
  if ! cmp -s $here/python/requirements.txt $venv/requirements.txt; then
    rm -rf "$venv"
    python3 -m venv "$venv" &&
      "$venv/bin/pip" install --quiet --require-hashes --only-binary :all: -r $here/python/requirements.txt &&
      cp $here/python/requirements.txt "$venv/requirements.txt" || return 1
  fi
  rm -rf "$stubs" && mkdir -p "$stubs" || return 1
  protos | xargs "$venv/bin/python" -m grpc_tools.protoc -I proto --python_out="$stubs" --grpc_python_out="$stubs"
}
run_python() {
  PYTHONPATH=$out/python/stubs PYTHONDONTWRITEBYTECODE=1 "$out/python/venv/bin/python" $here/python/client.py "$@"
}

build_go() {
  local stubs=$PWD/$out/go/rdrive tools=$PWD/$out/go/bin
  rm -rf "$stubs" && mkdir -p "$stubs" "$tools" || return 1
  printf 'module rdrive\n\ngo 1.26.0\n' >"$stubs/go.mod"
  go -C $here/go build -o "$tools/" tool || return 1
  protos | PATH=$tools:$PATH xargs protoc -I proto --go_out="$stubs" --go_opt=module=rdrive \
    --go-grpc_out="$stubs" --go-grpc_opt=module=rdrive || return 1
  go -C $here/go vet . && go -C $here/go build -o "$tools/client" .
}
run_go() {
  $out/go/bin/client "$@"
}

# A copy, because node looks for packages only beside a program and above it.
build_node() {
  local folder=$out/node
  mkdir -p "$folder" && cp $here/node/{client.js,package.json,.npmrc} "$folder" || return 1
  if ! cmp -s $here/node/package-lock.json "$folder/installed.json"; then
    rm -f "$folder/installed.json"
    cp $here/node/package-lock.json "$folder" &&
      npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund --loglevel=error &&
      cp $here/node/package-lock.json "$folder/installed.json"
  fi
}
run_node() {
  node $out/node/client.js "$@" proto
}

build_rust() {
  cargo build --quiet --locked --manifest-path $here/rust/Cargo.toml --target-dir $out/rust
}
run_rust() {
  $out/rust/debug/rdrive-client "$@"
}

build_java() {
  mvn --batch-mode --quiet --file $here/java/pom.xml process-classes
}
run_java() {
  java -cp "$out/java/classes:$out/java/lib/*" rdrive.client.Main "$@"
}

# The store holds the table's rows that have a value.
store_make() { # STORE
  python3 -c '
import base64, json, sys
plain = lambda written: bytes.fromhex(written["hex"]) * written.get("times", 1)
for row in json.load(open(sys.argv[1]))["keys"]:
    if row["value"] is not None:
        print(json.dumps({"key_hex": plain(row["key"]).hex(), "value_base64": base64.b64encode(plain(row["value"])).decode()}))
' $here/table.json | "$bin/rdrive" import "$1" --format jsonl -
}

# Starts the daemon on a port of the kernel's choice, and waits until it serves. Sets daemon and address.
serve() { # STORE
  local name line=''
  for name in $(compgen -e RDRIVED_ || true); do
    unset "$name"
  done
  mkfifo "$scratch/log" || return 1
  "$bin/rdrived" "$1" --listen 127.0.0.1:0 2>"$scratch/log" &
  daemon=$!
  exec {log}<"$scratch/log"
  while [[ $line != *event=serving* ]]; do
    IFS= read -r -t "$run_seconds" -u "$log" line || {
      echo "the daemon doesn't serve"
      return 1
    }
    [[ $line != *event=listening* ]] || address=$(grep -oE '127\.0\.0\.1:[0-9]+' <<<"$line")
    echo "$line" >>$out/daemon.log
  done
  cat <&"$log" >>$out/daemon.log & # nobody may wait for us to read
}

finish() {
  [[ -z $daemon ]] || kill "$daemon" 2>/dev/null || true
  rm -rf "$scratch"
}

run() { # LANGUAGE TABLE
  timeout "$run_seconds" bash -c "run_$1 \"\$@\"" "run_$1" "$address" "$2" </dev/null
}

# Besides: a client that compared nothing would find nothing wrong. One value of this table is not the store's.
finds_a_difference() { # LANGUAGE
  local status=0
  sed '/"hello"/,/value/ s/776f726c64/776f726c6421/' $here/table.json >"$scratch/other.json"
  run "$1" "$scratch/other.json" >/dev/null 2>"$scratch/said" || status=$?
  if ((status != 1)) || ! grep -q 'hello: Read gives 5 bytes, not 6' "$scratch/said" ||
    ! grep -q 'hello: BatchReadHashedKeys gives 5 bytes, not 6' "$scratch/said"; then
    cat "$scratch/said"
    return 1
  fi
}

for language; do
  case $language in
  -h | --help)
    usage
    exit 0
    ;;
  python | go | node | rust | java) ;;
  *)
    usage >&2
    exit 64
    ;;
  esac
done
(($#)) || set -- "${languages[@]}"
[[ -x $bin/rdrived && -x $bin/rdrive ]] || {
  echo "$bin has no rdrived or no rdrive: tests/run.sh --only test, or RDRIVE_BIN=FOLDER" >&2
  exit 1
}

scratch=$(mktemp -d) daemon='' address='' passed=0 failed=0 skipped=0 built=()
trap finish EXIT
mkdir -p $out
: >$out/daemon.log

fail() { # LANGUAGE WHY
  echo "client $1: FAILED: $2"
  failed=$((failed + 1))
}

for language; do
  if ! missing=$(tools "$language"); then
    if [[ ${CI-} == true ]]; then
      fail "$language" "$missing"
    else
      echo "client $language: skipped: $missing"
      skipped=$((skipped + 1))
    fi
    continue
  fi
  begun=$SECONDS
  if "build_$language" >"$out/$language.log" 2>&1 </dev/null; then
    echo "client $language: built in $((SECONDS - begun)) s"
    built+=("$language")
  else
    cat "$out/$language.log"
    fail "$language" 'it does not build'
  fi
done

if ((${#built[@]})); then
  export -f run_python run_go run_node run_rust run_java
  export here out
  if ! store_make "$scratch/store.srd" || ! serve "$scratch/store.srd"; then
    cat $out/daemon.log
    echo 'clients: 0 passed, 1 failed'
    exit 1
  fi
  for language in "${built[@]}"; do
    status=0
    run "$language" $here/table.json || status=$?
    if ((status)); then
      fail "$language" "it ends with status $status"
    elif ! finds_a_difference "$language"; then
      fail "$language" 'it finds nothing wrong where the store holds another value'
    else
      echo "client $language: ok"
      passed=$((passed + 1))
    fi
  done
  kill "$daemon"
  status=0
  wait "$daemon" || status=$?
  daemon=''
  if ((status)); then
    cat $out/daemon.log
    echo "the daemon ends with status $status"
    failed=$((failed + 1))
  fi
fi
if ((skipped)); then
  echo "clients: $passed passed, $failed failed, $skipped skipped"
else
  echo "clients: $passed passed, $failed failed"
fi
((failed == 0))
