#!/usr/bin/env bash
# The NBD export against clients that nobody here wrote: nbdinfo, nbdcopy, qemu-img, qemu-io.
# Usage: nbd_tools_test.sh PATH_OF_nbd_ram_server
set -euo pipefail
server=$1
for tool in nbdinfo nbdcopy qemu-img qemu-io; do
  command -v "$tool" >/dev/null || { echo "$tool is missing; run tools/install-deps" >&2; exit 1; }
done
dir=$(mktemp -d)
cleanup() {
  exec 9>&- || true
  [ -z "${pid:-}" ] || wait "$pid" 2>/dev/null || true
  rm -rf "$dir"
}
trap cleanup EXIT
mkfifo "$dir/stdin"
size=$((64 << 20))
"$server" "unix:$dir/nbd.sock" "disk:$size" "other:$((8 << 20))" "fixed:$((4 << 20)):ro" <"$dir/stdin" >"$dir/out" &
pid=$!
exec 9>"$dir/stdin"
for _ in $(seq 200); do grep -q '^ready' "$dir/out" && break; sleep 0.05; done
grep -q '^ready' "$dir/out"
uri="nbd+unix:///disk?socket=$dir/nbd.sock"
fixed="nbd+unix:///fixed?socket=$dir/nbd.sock"
fail() { echo "FAILED: $*" >&2; exit 1; }
# What must be said must be found; what must fail must fail.
expect() { grep -Eq -- "$2" <<<"$1" || fail "expected '$2' in: $1"; }

step() { echo "-- $*"; }
step "nbdinfo"
info=$(nbdinfo "$uri")
expect "$info" "protocol: newstyle-fixed without TLS, using structured packets"
expect "$info" "export-size: $size"
expect "$info" "block_size_minimum: 512"
expect "$info" "block_size_preferred: 4096"
expect "$info" "block_size_maximum: 33554432"
for flag in can_multi_conn can_flush can_fua can_trim can_zero can_fast_zero can_df; do expect "$info" "$flag: true"; done
expect "$info" "base:allocation"
expect "$(nbdinfo "$fixed")" "is_read_only: true"
[ "$(nbdinfo --list --json "nbd+unix://?socket=$dir/nbd.sock" | grep -c '"export-name"')" = 3 ] || fail "three exports are listed"
! nbdinfo "nbd+unix:///absent?socket=$dir/nbd.sock" 2>/dev/null || fail "an export that is not there"

step "nbdcopy there and back, several connections"
head -c "$size" /dev/urandom >"$dir/random"
truncate -s "$size" "$dir/random"
nbdcopy --connections=4 "$dir/random" "$uri"
nbdcopy --connections=4 "$uri" "$dir/back"
cmp "$dir/random" "$dir/back" || fail "nbdcopy brought other bytes back"

step "nbdcopy with the largest requests"
nbdcopy --request-size=33554432 "$dir/random" "$uri"
nbdcopy --request-size=33554432 "$uri" "$dir/back"
cmp "$dir/random" "$dir/back" || fail "large requests brought other bytes back"

step "block status, discard, zeroes"
nbdcopy --destination-is-zero --allocated "$dir/random" "$uri"
cat >"$dir/io" <<'IO'
discard 0 16M
write -z 16M 1M
write -zu 20M 1M
write -P 0xab 24M 512
write -f -P 0xcd 25165312 1024
flush
read -P 0 0 17M
read -P 0 20M 1M
read -P 0xcd 25165312 1024
IO
out=$(qemu-io -f raw "$uri" <"$dir/io" 2>&1)
! grep -Eqi 'fail|error|mismatch|denied' <<<"$out" || fail "qemu-io: $out"
map=$(nbdinfo --map "$uri")
expect "$map" "^ +0 +16777216 +3 +hole,zero"
expect "$map" "^ +16777216 +4194304 +0 +data"
expect "$map" "^ +20971520 +1048576 +3"

step "qemu-img convert, compare, map, sparse"
qemu-img convert -n -f raw -O raw "$dir/random" "$uri"
qemu-img compare -f raw -F raw "$dir/random" "$uri" >/dev/null || fail "qemu-img compare"
truncate -s "$size" "$dir/sparse"
printf hello | dd of="$dir/sparse" bs=1 seek=$((33 << 20)) conv=notrunc status=none
qemu-img convert -n -W -m 8 -f raw -O raw "$dir/sparse" "$uri"
qemu-img compare -f raw -F raw "$dir/sparse" "$uri" >/dev/null || fail "qemu-img compare of a sparse image"
qemu-img map --output=json "$uri" | grep -q '"zero": true' || fail "qemu-img sees no holes"

step "errors"
! qemu-io -f raw -c "write 0 4k" "$fixed" >/dev/null 2>&1 || fail "a read-only export was written"
out=$(qemu-io -f raw -r -c "read -P 0 0 4M" "$fixed" 2>&1)
expect "$out" "read 4194304/4194304"
out=$(qemu-io -f raw -c "read 64M 4k" "$uri" 2>&1 || true)
expect "$out" "failed|Invalid|out of"

step "clients that die in mid request"
for _ in 1 2 3; do
  timeout -s KILL 0.1 nbdcopy --request-size=33554432 "$dir/random" "$uri" >/dev/null 2>&1 || true
done
nbdcopy "$dir/random" "$uri"
nbdcopy "$uri" "$dir/back"
cmp "$dir/random" "$dir/back" || fail "after killed clients"

exec 9>&-
wait "$pid" || fail "the server ended with $?"
pid=
echo "passed"
