#!/usr/bin/env python3
"""Compares two directory trees in everything a backup has to keep: names, types, content, mode, owner,
modification time in nanoseconds, link targets, hard links, device numbers, extended attributes (ACLs and
capabilities among them) and holes as far as they read. Standard library only.

    compare_trees.py A B        exit 0 if equal; otherwise each difference, at most 50, and exit 1
"""
import os
import stat
import sys

CHUNK = 4 << 20


def entries(root):
    """All paths below root, relative, with their lstat; the root itself as b''."""
    root = os.fsencode(root)
    yield b"", os.lstat(root)
    pending = [b""]
    while pending:
        folder = pending.pop()
        with os.scandir(os.path.join(root, folder) if folder else root) as found:
            for entry in found:
                path = os.path.join(folder, entry.name) if folder else entry.name
                status = entry.stat(follow_symlinks=False)
                yield path, status
                if stat.S_ISDIR(status.st_mode):
                    pending.append(path)


def xattrs(path):
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return {}
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}


def same_content(a, b):
    with open(a, "rb", buffering=0) as left, open(b, "rb", buffering=0) as right:
        while True:
            one, two = left.read(CHUNK), right.read(CHUNK)
            if one != two:
                return False
            if not one:
                return True


def facts(status, is_root):
    kind = stat.S_IFMT(status.st_mode)
    result = {"type": oct(kind), "mode": oct(stat.S_IMODE(status.st_mode)), "uid": status.st_uid, "gid": status.st_gid}
    if not is_root:
        result["mtime"] = status.st_mtime_ns
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        result["device"] = status.st_rdev
    if kind == stat.S_IFREG:
        result["size"] = status.st_size
    if kind != stat.S_IFDIR:
        result["links"] = status.st_nlink
    return result


def compare(a, b):
    left, right = dict(entries(a)), dict(entries(b))
    for path in sorted(left.keys() - right.keys()):
        yield path, "is missing in the second tree"
    for path in sorted(right.keys() - left.keys()):
        yield path, "is missing in the first tree"
    groups = {}
    for path in sorted(left.keys() & right.keys()):
        one, two = left[path], right[path]
        first, second = facts(one, not path), facts(two, not path)
        for name in first.keys() | second.keys():
            if first.get(name) != second.get(name):
                yield path, f"{name}: {first.get(name)} and {second.get(name)}"
        x, y = os.path.join(os.fsencode(a), path), os.path.join(os.fsencode(b), path)
        if path and xattrs(x) != xattrs(y):
            yield path, f"extended attributes: {xattrs(x)} and {xattrs(y)}"
        if stat.S_ISLNK(one.st_mode) and stat.S_ISLNK(two.st_mode) and os.readlink(x) != os.readlink(y):
            yield path, "link target"
        if stat.S_ISREG(one.st_mode) and stat.S_ISREG(two.st_mode):
            if not same_content(x, y):
                yield path, "content"
            if one.st_nlink > 1:
                group = groups.setdefault((one.st_dev, one.st_ino), (two.st_dev, two.st_ino))
                if group != (two.st_dev, two.st_ino):
                    yield path, "hard link to another file"


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    count = 0
    for path, what in compare(sys.argv[1], sys.argv[2]):
        count += 1
        if count <= 50:
            print(f"{os.fsdecode(path) or '.'}: {what}".encode("utf-8", "backslashreplace").decode())
    if count:
        print(f"{count} differences")
        return 1
    print("identical")
    return 0


if __name__ == "__main__":
    sys.exit(main())
