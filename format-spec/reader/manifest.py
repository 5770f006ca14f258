"""Makes and compares manifests of directories: what a golden repository has to restore to.

    manifest.py make DIR > manifest.json     (needs the package blake3)
    manifest.py compare MANIFEST RESTORED

A manifest is {"root": path, "entries": [entry, …]}. `root` is where the directory lies in the restored tree. An entry has
`path` (below root), `type` (file, dir, link, fifo, socket, char, block), `mode` (octal), `mtime_ns`; files also `size` and
`blake3` (or `sha256`); links `target`; hard links `links_to` (the least of their paths); `xattrs` by name in hex if there are. Bytes of paths
and targets other than A–Z a–z 0–9 - . _ ~ / stand as %XX.
"""

import hashlib
import json
import os
import stat
import sys
from urllib.parse import quote_from_bytes, unquote_to_bytes

TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
}


def paths(root):
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            yield os.path.relpath(os.path.join(folder, name), root)


def describe(root, path, hashes=("sha256",)):
    full = os.path.join(root, path)
    info = os.lstat(full)
    kind = TYPES[stat.S_IFMT(info.st_mode)]
    entry = {"path": quote_from_bytes(path), "type": kind, "mode": f"{stat.S_IMODE(info.st_mode):04o}"}
    entry["mtime_ns"] = info.st_mtime_ns
    if kind == "file":
        entry["size"] = info.st_size
        with open(full, "rb") as file:
            content = file.read()
        for name in hashes:
            entry[name] = hashlib.sha256(content).hexdigest() if name == "sha256" else blake3_of(content)
    if kind == "link":
        entry["target"] = quote_from_bytes(os.readlink(full))
    try:
        found = os.listxattr(full, follow_symlinks=False)
        xattrs = {name: os.getxattr(full, name, follow_symlinks=False).hex() for name in sorted(found) if name.startswith("user.")}
        if xattrs:
            entry["xattrs"] = xattrs
    except OSError:
        pass
    return entry


def blake3_of(content):
    from blake3 import blake3

    return blake3(content).hexdigest()


def make(root):
    return {"root": quote_from_bytes(os.path.abspath(root).lstrip(b"/")), "entries": list(described(root, ("blake3",)))}


def described(root, hashes):
    """Entries of a directory, hard links told by the least of their paths."""
    first = {}
    for path in sorted(paths(root)):
        info = os.lstat(os.path.join(root, path))
        entry = describe(root, path, hashes)
        if info.st_nlink > 1 and entry["type"] != "dir":
            entry["links_to"] = first.setdefault((info.st_dev, info.st_ino), entry["path"])
        yield entry


def compare(manifest, restored):
    """Differences between a manifest and what was restored."""
    root = os.path.join(os.fsencode(restored), unquote_to_bytes(manifest["root"]))
    wanted = {entry["path"]: entry for entry in manifest["entries"]}
    found = {entry["path"]: entry for entry in described(root, ("sha256", "blake3"))}
    for path in sorted(wanted.keys() | found.keys()):
        if path not in found:
            yield f"{path}: missing"
        elif path not in wanted:
            yield f"{path}: not in the manifest"
        else:
            for field, value in wanted[path].items():
                # Modes of symbolic links mean nothing.
                if found[path].get(field) != value and not (field == "mode" and wanted[path]["type"] == "link"):
                    yield f"{path}: {field} is {found[path].get(field)!r}, expected {value!r}"
            if "links_to" in found[path] and "links_to" not in wanted[path]:
                yield f"{path}: linked to {found[path]['links_to']}"


def main(arguments):
    match arguments:
        case ["make", root]:
            manifest = make(os.fsencode(root))
            # An entry a line: differences can be read.
            entries = ",\n".join(json.dumps(entry, separators=(",", ":"), sort_keys=True) for entry in manifest["entries"])
            print(f'{{"root":{json.dumps(manifest["root"])},"entries":[\n{entries}\n]}}')
            return 0
        case ["compare", manifest, restored]:
            with open(manifest, encoding="utf-8") as file:
                differences = list(compare(json.load(file), restored))
            for difference in differences:
                print(difference, file=sys.stderr)
            return 1 if differences else 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
