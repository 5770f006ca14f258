#!/usr/bin/env python3
"""Makes a golden repository with the real commands, as `v1-made`: see README.md in this folder.

    make.py --binary target/release/strongroom --python VENV/bin/python3 [--out tests/golden/v1-made]

The Python interpreter needs the packages of format-spec/reader/requirements.txt. What comes out differs each time (salts,
inodes, times of change): it is made once for a version, checked in, and never again once that version was released.
Run it as root, on a file system with extended attributes, or some kinds of metadata are missing.
"""
import argparse
import os
import pathlib
import shutil
import socket
import subprocess
import sys

PROJECT = pathlib.Path(__file__).resolve().parents[2]
WORK = pathlib.Path("/var/tmp/strongroom-golden")
SOURCE = WORK / "source"
PASSWORDS = {"password": "golden", "other-password": "a second one, with a ü"}
COMMIT_TIMES = iter(f"2026-01-{day:02}T03:00:00Z" for day in range(1, 29))


def noise(seed, length):
    """Bytes that do not compress, the same everywhere."""
    import hashlib

    return b"".join(hashlib.sha256(f"{seed}/{n}".encode()).digest() for n in range(-(-length // 32)))[:length]


def text(first, count):
    return b"".join(b"%08d INFO request served in %d ms\n" % (n, n * n % 997) for n in range(first, first + count))


def write(name, content, mode=0o644):
    path = SOURCE / name if isinstance(name, str) else pathlib.Path(os.fsdecode(os.fsencode(SOURCE) + b"/" + name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    return path


def first_day():
    SOURCE.mkdir(parents=True)
    write("empty", b"")
    write("one-byte", b"1", 0o600)
    write("logs/app.log", text(0, 3_000))
    # A database, cut finely: more chunks than fit into a node. Its pages compress well.
    pages = [b"SQLite format 3\0" + text(0, 70)]
    pages += [b"%06d" % n + text(n * 50, 12) for n in range(400)]
    write("data/shop.sqlite", b"".join(page.ljust(4096, b"\0")[:4096] for page in pages))
    # Large and, by its beginning, incompressible: cut coarsely.
    write("data/media.bin", noise("media", 64 << 10) + bytes(5 << 20))
    write("data/copy-of-app.log", text(0, 3_000))
    with open(SOURCE / "data/sparse", "wb") as file:
        file.truncate(3 << 20)
        os.pwrite(file.fileno(), b"first", 0)
        os.pwrite(file.fileno(), b"middle", 1 << 20)
    hard = write("links/one", b"three names\n")
    for name in ("links/two", "other/three"):
        (SOURCE / name).parent.mkdir(exist_ok=True)
        os.link(hard, SOURCE / name)
    os.symlink("one", SOURCE / "links/soft")
    os.symlink(b"no/such\xffplace", SOURCE / "links/dangling")
    os.link(SOURCE / "links/soft", SOURCE / "links/soft-too", follow_symlinks=False)
    write(b"odd/\xff\xfe not text", b"name")
    write("odd/line\nfeed", b"name")
    write("odd/" + "l" * 255, b"name")
    write("odd/ü-composed", b"name")
    (SOURCE / "odd/empty-dir").mkdir(mode=0o700)
    (SOURCE / "odd/sticky").mkdir()
    (SOURCE / "odd/sticky").chmod(0o1777)
    write("odd/setuid", b"#!", 0o4755)
    write("odd/read-only", b"r", 0o400)
    os.mkfifo(SOURCE / "odd/pipe", 0o640)
    socket.socket(socket.AF_UNIX).bind(str(SOURCE / "odd/socket"))
    attributed = write("odd/attributes", b"a")
    os.setxattr(attributed, "user.strongroom", b"value")
    os.setxattr(attributed, "user.binary", bytes(range(256)))
    os.setxattr(attributed, "user.empty", b"")
    os.setxattr(SOURCE / "odd/empty-dir", "user.on-a-directory", b"too")
    optional("setfacl", "-m", "u:1234:rw,g:77:r", SOURCE / "odd/attributes")
    optional("setfacl", "-d", "-m", "u:99:rx", SOURCE / "odd/sticky")
    optional("chattr", "+d", SOURCE / "odd/read-only")
    if os.geteuid() == 0:
        os.chown(SOURCE / "odd/read-only", 12345, 54321)
        os.mknod(SOURCE / "odd/null", 0o666 | 0o020000, os.makedev(1, 3))
    for number in range(2_200):
        write(f"many/{number:05}", b"")
    os.utime(SOURCE / "empty", ns=(0, -1))
    os.utime(SOURCE / "one-byte", ns=(0, 4_102_444_800_999_999_999))
    os.utime(SOURCE / "odd/empty-dir", ns=(0, 946_684_799_123_456_789))


def second_day():
    with open(SOURCE / "logs/app.log", "ab") as log:
        log.write(text(3_000, 100))
    with open(SOURCE / "data/shop.sqlite", "r+b") as database:
        for page in (3, 170, 371):
            os.pwrite(database.fileno(), noise(page, 64), page * 4096)
    write("new", b"of the second day")
    (SOURCE / "many/00007").unlink()
    os.rename(SOURCE / "one-byte", SOURCE / "renamed")
    write("many/01000", b"no longer empty")


def optional(*command):
    if shutil.which(command[0]) is None or subprocess.run(list(map(str, command))).returncode != 0:
        print(f"WITHOUT {command[0]}", file=sys.stderr)


class Strongroom:
    def __init__(self, binary):
        self.binary = str(pathlib.Path(binary).resolve())
        keep = {name: value for name, value in os.environ.items() if not name.startswith("STRONGROOM_")}
        self.env = {**keep, "STRONGROOM_NO_STATE": "1", "STRONGROOM_REPOSITORY": str(WORK / "repo"), "STRONGROOM_PASSWORD_FILE": str(WORK / "password")}

    def __call__(self, *args, **options):
        # Its own name for the host, so that this one's is not handed on.
        unshared = ["unshare", "--uts", "sh", "-c", 'hostname golden && exec "$@"', "sh"] if os.geteuid() == 0 else []
        subprocess.run([*unshared, self.binary, *map(str, args)], env=self.env, check=True, **options)

    def backup(self, *args, **options):
        self("backup", "--quiet", "--host", "golden", "--time", next(COMMIT_TIMES), *args, **options)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--out", type=pathlib.Path, default=PROJECT / "tests/golden/v1-made")
    args = parser.parse_args()
    WORK.mkdir()
    try:
        for name, password in PASSWORDS.items():
            (WORK / name).write_text(password + "\n", encoding="utf-8")
        strongroom = Strongroom(args.binary)
        cheap = ["--kdf-memory", "19MiB", "--kdf-passes", "2"]
        strongroom("init", "--quiet", "--label", "first", *cheap)
        strongroom("key", "add", "--quiet", "--label", "second", "--new-password-file", WORK / "other-password", *cheap)
        first_day()
        strongroom.backup("--stdin-filename", "dump.sql", "--tag", "stream", input=text(0, 200))
        # Every file is followed by a partial snapshot: forgotten ones, merged segments and a state come from it.
        strongroom.backup("--tag", "small,first", "--partial-every", "0", SOURCE / "odd", SOURCE / "links", SOURCE / "data")
        strongroom.backup("--tag", "first", "--exclude", "copy-of-*", SOURCE)
        second_day()
        strongroom.backup("--tag", "second", SOURCE)
        strongroom("check", "--read-data", "--quiet")
        shutil.rmtree(args.out, ignore_errors=True)
        args.out.mkdir()
        manifest = [args.python, "-B", PROJECT / "format-spec/reader/manifest.py", "make", SOURCE]
        with open(args.out / "manifest.json", "wb") as file:
            subprocess.run(manifest, stdout=file, check=True)
        for name in PASSWORDS:
            shutil.copy(WORK / name, args.out / name)
        shutil.copytree(WORK / "repo", args.out / "repo", ignore=shutil.ignore_patterns("tmp"))
        size = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
        print(f"{args.out}: {size} bytes")
    finally:
        shutil.rmtree(WORK)


if __name__ == "__main__":
    main()
