"""Restores a snapshot into an empty directory (06-trees.md)."""

import hashlib
import os
import stat

import records
from refusal import Refused

NODE_DEPTH_MAX = 2000


class Restore:
    """Writes below an open directory only; what cannot be restored is reported and counted."""

    def __init__(self, blobs, report):
        self.blobs, self.report = blobs, report
        self.names, self.problems, self.files = {}, 0, 0

    def run(self, tree, target):
        os.makedirs(target, exist_ok=True)
        root = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if os.listdir(root):
                raise Refused("target", f"{target} is not empty")
            self.root = root
            self.directory(tree, root, b"", 0)
        finally:
            os.close(root)

    def problem(self, path, what):
        self.problems += 1
        self.report(f"{os.fsdecode(path)}: {what}")

    def nodes(self, tree, depth=0):
        """Nodes of a directory, its parts checked against what their parent says."""
        if depth > records.SPLIT_DEPTH_MAX:
            records.fail("tree: parts nested too deep")
        variant, items = records.read_tree(self.blobs.get(1, tree))
        if variant == "nodes":
            return items
        found = []
        for part in items:
            below = self.nodes(part["tree"], depth + 1)
            if not below or below[0]["name"] != part["first"] or len(below) != part["entries"]:
                records.fail("tree: a part is not what its parent says")
            if found and found[-1]["name"] >= below[0]["name"]:
                records.fail("tree: names do not ascend from part to part")
            found += below
        return found

    def directory(self, tree, fd, path, depth):
        if depth > NODE_DEPTH_MAX:
            raise Refused("record", f"{os.fsdecode(path)}: directories nested too deep for this reader")
        for node in self.nodes(tree):
            here = path + b"/" + node["name"]
            try:
                self.node(node, fd, here, depth)
            except Refused as refused:
                self.problem(here, refused)
            except OSError as error:
                self.problem(here, error.strerror)

    def node(self, node, fd, path, depth):
        self.files += 1
        name, meta, (kind, content) = node["name"], node["meta"], node["is"]
        identity = None
        if meta["links"] and kind != "dir":
            # Device and inode may mislead: what differs is never one file.
            what = hashlib.sha256(repr((kind, content, meta["mtime"])).encode()).digest()
            identity = (meta["device"], meta["inode"], what)
        if identity in self.names and identity is not None:
            # The first name lies below the root of the restore, reached component by component.
            with Parent(self.root, self.names[identity]) as (first_dir, first):
                os.link(first, name, src_dir_fd=first_dir, dst_dir_fd=fd, follow_symlinks=False)
            return
        if kind == "dir":
            os.mkdir(name, 0o700, dir_fd=fd)
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            try:
                self.directory(content["tree"], inner, path, depth + 1)
                self.metadata(inner, meta, path)
            finally:
                os.close(inner)
            return
        if kind == "file":
            out = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=fd)
            try:
                self.content(content, out)
                if content["unstable"]:
                    self.report(f"{os.fsdecode(path)}: changed while it was backed up")
                self.metadata(out, meta, path)
            except BaseException:
                os.unlink(name, dir_fd=fd)
                raise
            finally:
                os.close(out)
        elif kind == "link":
            os.symlink(content["target"], name, dir_fd=fd)
            self.special_metadata(name, fd, meta, path, is_link=True)
        else:
            kinds = {"fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK, "char": stat.S_IFCHR, "block": stat.S_IFBLK}
            device = os.makedev(content["major"], content["minor"]) if content else 0
            os.mknod(name, kinds[kind] | 0o600, device, dir_fd=fd)
            self.special_metadata(name, fd, meta, path, is_link=False)
        if identity is not None:
            self.names[identity] = path

    def content(self, content, out):
        """Writes the chunks around the holes."""
        os.ftruncate(out, content["size"])
        ranges = records.data_ranges(content)
        for chunk in self.chunks(content["depth"], content["chunks"]):
            if os.pwrite(out, chunk, records.take(ranges, len(chunk))) != len(chunk):
                raise OSError(0, "a short write")
        if ranges:
            records.fail("file: too few bytes")

    def chunks(self, depth, table):
        for id, length in records.read_table(depth, table):
            if depth == 0:
                yield self.blobs.get(0, id, length)
                continue
            inner = records.read(records.CHUNK_LIST, self.blobs.get(1, id), "chunk list")
            if inner["depth"] != depth - 1:
                raise Refused("table", f"a chunk list of depth {inner['depth']}, expected {depth - 1}")
            if sum(n for _, n in records.read_table(depth - 1, inner["chunks"])) != length:
                raise Refused("table", "a chunk list of another number of bytes than its parent says")
            yield from self.chunks(depth - 1, inner["chunks"])

    # Owner before mode, because a change of owner clears set-id bits; times last.

    def metadata(self, fd, meta, path):
        self.attempt(path, "owner", os.chown, fd, meta["uid"], meta["gid"])
        for xattr in meta["xattrs"]:
            self.attempt(path, f"attribute {xattr['name']!r}", os.setxattr, fd, xattr["name"], xattr["value"])
        self.attempt(path, "mode", os.chmod, fd, meta["mode"])
        self.attempt(path, "times", os.utime, fd, ns=times(meta))

    def special_metadata(self, name, fd, meta, path, is_link):
        here = {"dir_fd": fd, "follow_symlinks": False}
        self.attempt(path, "owner", os.chown, name, meta["uid"], meta["gid"], **here)
        inner = f"/proc/self/fd/{fd}/".encode() + name
        for xattr in meta["xattrs"]:
            what = f"attribute {xattr['name']!r}"
            self.attempt(path, what, os.setxattr, inner, xattr["name"], xattr["value"], follow_symlinks=False)
        if not is_link:
            self.attempt(path, "mode", os.chmod, name, meta["mode"], dir_fd=fd)
        self.attempt(path, "times", os.utime, name, ns=times(meta), **here)

    def attempt(self, path, what, call, *args, **options):
        try:
            call(*args, **options)
        except OSError as error:
            # Without privileges an owner cannot be given away: that is no failure of the restore.
            if what == "owner" and os.geteuid() != 0:
                return
            self.problem(path, f"{what} not restored: {error.strerror}")


class Parent:
    """The directory that holds `path`, opened below `root` without following links, and the last name."""

    def __init__(self, root, path):
        *self.parents, self.name = path.lstrip(b"/").split(b"/")
        self.root = root

    def __enter__(self):
        self.fd = os.dup(self.root)
        for name in self.parents:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self.fd)
            os.close(self.fd)
            self.fd = inner
        return self.fd, self.name

    def __exit__(self, *_):
        os.close(self.fd)


def times(meta):
    nanoseconds = meta["mtime"]["seconds"] * 1_000_000_000 + meta["mtime"]["nanos"]
    return nanoseconds, nanoseconds
