#!/usr/bin/env bash
# Every kind of metadata on real file systems: backs a tree up and restores it on loop-mounted ext4, xfs and btrfs,
# and compares with the original in everything, with rsync too where it is there. Needs root.
#
#   tests/campaigns/file_systems.sh BINARY [ext4|xfs|btrfs]...
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "$1"); shift
[ $# -gt 0 ] || set -- ext4 xfs btrfs
work=$(mktemp -d "${TMPDIR:-/var/tmp}/strongroom-fs.XXXXXX")
mounted=
cleanup() { [ -z "$mounted" ] || umount "$mounted" 2>/dev/null || true; rm -rf "$work"; }
trap cleanup EXIT
export STRONGROOM_PASSWORD='file systems' STRONGROOM_NO_STATE=1

make_tree() {
  local d=$1
  python3 "$here/../demo/make_data.py" create "$d" --size 24
  mknod "$d/odd/char" c 1 3
  mknod "$d/odd/block" b 7 200
  python3 - "$d/odd/socket" <<'PY'
import socket, sys
socket.socket(socket.AF_UNIX).bind(sys.argv[1])
PY
  chown 12345:54321 "$d/odd/one-byte"
  chown -h 1:2 "$d/odd/dangling"
  mkdir -m 2775 "$d/odd/setgid"; mkdir -m 1777 "$d/odd/sticky"; mkdir -m 0000 "$d/odd/closed"
  touch "$d/odd/setuid"; chown 33:33 "$d/odd/setuid"; chmod 4755 "$d/odd/setuid"
  ! command -v setfattr >/dev/null || { setfattr -n user.text -v value "$d/odd/one-byte"; setfattr -n trusted.secret -v hidden "$d/odd/empty"; setfattr -n user.dir -v d "$d/odd/sticky"; }
  ! command -v setfacl >/dev/null || { setfacl -m u:1234:rw,g:77:r "$d/odd/one-byte"; setfacl -d -m u:99:rx "$d/odd/sticky"; }
  ! command -v setcap >/dev/null || setcap cap_net_bind_service+ep "$d/odd/setuid" || true
  touch "$d/odd/nodump"; chattr +d "$d/odd/nodump" 2>/dev/null || true
  touch -d '2038-02-01 00:00:00.123456789' "$d/odd/future"
  touch -d '1999-12-31 23:59:59.999999999' "$d/odd/sticky" "$d/odd/closed" "$d/odd/setgid"
}

for kind in "$@"; do
  if ! command -v "mkfs.$kind" >/dev/null; then
    echo "SKIPPED $kind: cannot make one: no mkfs.$kind"; continue
  fi
  truncate -s 700M "$work/$kind.img"
  # Nothing is kept for root, who fills it here: what is kept would be the first to be free again, and not for the reserve.
  keep=(); [ "$kind" != ext4 ] || keep=(-m 0)
  "mkfs.$kind" -q "${keep[@]}" "$work/$kind.img"
  mounted=$work/mnt; mkdir -p "$mounted"
  if ! mount -o loop "$work/$kind.img" "$mounted"; then
    echo "SKIPPED $kind: cannot mount it"; mounted=; rm -f "$work/$kind.img"; continue
  fi
  make_tree "$mounted/data"
  export STRONGROOM_REPOSITORY=$mounted/repository
  "$binary" init -q
  "$binary" backup -q "$mounted/data"
  python3 "$here/../demo/make_data.py" night "$mounted/data"
  "$binary" backup -q "$mounted/data"
  "$binary" check --read-data -q
  "$binary" restore "latest:$mounted/data" --target "$mounted/restored" --flags --verify -q
  python3 "$here/../demo/compare_trees.py" "$mounted/data" "$mounted/restored"
  if command -v rsync >/dev/null; then
    differences=$(rsync -aHAXnc --delete --out-format='%i %n' "$mounted/data/" "$mounted/restored/" | grep -v ' \./$' || true)
    [ -z "$differences" ] || { echo "rsync finds differences on $kind:"; echo "$differences"; exit 1; }
  fi
  if lsattr -d "$mounted/data/odd/nodump" >/dev/null 2>&1; then
    [ "$(lsattr -d "$mounted/data/odd/nodump" | cut -d' ' -f1)" = "$(lsattr -d "$mounted/restored/odd/nodump" | cut -d' ' -f1)" ] || { echo "flags differ on $kind"; exit 1; }
  fi
  # In place: the restored tree is already right, so nothing may be written; then damage some and mend it.
  echo changed > "$mounted/restored/odd/empty"; rm "$mounted/restored/odd/one-byte"; mkdir "$mounted/restored/extra"
  "$binary" restore "latest:$mounted/data" --target "$mounted/restored" --delete --flags -q
  python3 "$here/../demo/compare_trees.py" "$mounted/data" "$mounted/restored"
  # Full to the last byte: the reserve makes room to forget and to prune, and is made again of what the large file gives back.
  "$binary" reserve set 16MiB -q
  head -c 20M /dev/urandom > "$mounted/data/large"
  "$binary" backup -q "$mounted/data"
  rm "$mounted/data/large"
  "$binary" backup -q "$mounted/data"; "$binary" backup -q "$mounted/data"
  fill() { rm -f "$mounted/filler"; cat /dev/zero > "$mounted/filler" 2>/dev/null || true; sync; cat /dev/zero >> "$mounted/filler" 2>/dev/null || true; }
  fill; "$binary" forget --keep-last 2 -q
  fill; "$binary" prune --max-unused unlimited --grace 0s -q
  "$binary" reserve status | grep -q 'Kept free: 16.00 MiB' || { echo "$kind: the reserve is not whole again"; exit 1; }
  rm "$mounted/filler"
  "$binary" check --read-data -q
  umount "$mounted"; mounted=; rm -f "$work/$kind.img"
  echo "$kind: identical, twice; full, and out of it"
done
