#!/usr/bin/env bash
# The fio engine on three chunkserver cores: read, write, trim, sync, verification, several jobs, errors.
# Usage: fio_engine_test.sh FIO ENGINE.so LOCAL_STORES
set -euo pipefail
fio=$1 engine=$2 stores=$3
dir=$(mktemp -d)
cleanup() {
  exec 8>&- || true
  [ -z "${pid:-}" ] || wait "$pid" 2>/dev/null || true
  rm -rf "$dir"
}
trap cleanup EXIT
fail() { echo "FAILED: $*" >&2; tail -5 "$dir"/err >&2 || true; exit 1; }
step() { echo "-- $*"; }
mkfifo "$dir/stdin"
"$stores" "$dir" 1 1 <"$dir/stdin" >"$dir/out" 2>"$dir/err" &
pid=$!
exec 8>"$dir/stdin"
for _ in $(seq 600); do grep -q '^ready' "$dir/out" && break; sleep 0.1; done
grep -q '^ready' "$dir/out" || fail "the stores did not start"

# run NAME ARGUMENTS...: must end without an error
run() {
  local name=$1
  shift
  (cd "$dir" && "$fio" --ioengine="external:$engine" --cluster="$dir" --volume_map="$dir/map" --name="$name" "$@") \
    >"$dir/$name.log" 2>&1 || fail "$name: $(tail -5 "$dir/$name.log")"
  grep -q 'err= 0' "$dir/$name.log" || fail "$name: $(tail -5 "$dir/$name.log")"
}
# refuse SENTENCE ARGUMENTS...: must fail and say so
refuse() {
  local sentence=$1 out
  shift
  out=$(cd "$dir" && "$fio" --name=refused --rw=read --size=1M "$@" 2>&1) && fail "this should have failed: $*"
  grep -q "$sentence" <<<"$out" || fail "expected '$sentence' in: $out"
}

step "random writes with verification, queue depth 16"
run verify --rw=randwrite --bs=4k --iodepth=16 --size=32M --verify=crc32c --verify_fatal=1
step "mixed sizes with sync and verification"
run mixed --rw=randrw --bsrange=512-128k --blockalign=512 --iodepth=8 --size=16M --verify=md5 --fsync=16 --verify_fatal=1
step "several jobs on one volume"
run jobs --rw=randwrite --bs=8k --iodepth=4 --numjobs=3 --size=16M --offset_increment=64M --verify=crc32c --verify_fatal=1
step "large requests"
run large --rw=write --bs=4M --iodepth=2 --size=128M --verify=crc32c --verify_fatal=1
step "trim, then zeros are read"
run trim --rw=trim --bs=1M --iodepth=4 --size=16M
run zeros --rw=read --bs=64k --iodepth=4 --size=16M --verify=pattern --verify_pattern=0x00 --do_verify=1
step "paced I/O leaves without waiting for a full queue"
run paced --rw=randwrite --bs=4k --iodepth=32 --rate_iops=200 --size=1M
step "the size of the volume is the size of the file"
run whole --rw=read --bs=1M --iodepth=4 --io_size=4M
step "errors"
refuse "cluster=DIR" --ioengine="external:$engine" --volume=x
refuse "cannot read the cluster's secret" --ioengine="external:$engine" --cluster="$dir/absent" --volume=x
refuse "volume=NAME" --ioengine="external:$engine" --cluster="$dir"
refuse "cannot start" --ioengine="external:$engine" --cluster="$dir" --volume=x --curve_program=/nowhere/curve
refuse "could not be attached" --ioengine="external:$engine" --cluster="$dir" --volume=x --curve_program=/bin/false
step "maps from a feed"
cat >"$dir/feed" <<'FEED'
#!/usr/bin/env python3
import pathlib, struct, sys
assert sys.argv[1:4] == ["internal", "map-feed", "vol"], sys.argv
data = (pathlib.Path(__file__).parent / "map").read_bytes()
sys.stdout.buffer.write(struct.pack("<I", len(data)) + data)
sys.stdout.buffer.flush()
assert sys.stdin.buffer.read() == b""
(pathlib.Path(__file__).parent / "detached").touch()
FEED
chmod +x "$dir/feed"
(cd "$dir" && "$fio" --ioengine="external:$engine" --cluster="$dir" --volume=vol --curve_program="$dir/feed" --name=feed \
  --rw=randwrite --bs=4k --size=1M) >"$dir/feed.log" 2>&1 || fail "feed: $(tail -5 "$dir/feed.log")"
[ -e "$dir/detached" ] || fail "the feed was not told to detach"
exec 8>&-
wait "$pid" || fail "the stores ended with $?"
pid=
echo "passed"
