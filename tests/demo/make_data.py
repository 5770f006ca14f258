#!/usr/bin/env python3
"""Makes a realistic application data directory out of what this machine has, and a night's change to it.

    make_data.py create DIR [--size MIB]     databases, logs, source trees, media, odd files
    make_data.py night DIR                   rows changed, logs rotated, files added, moved and removed

Seeded: the same machine gives the same data. Standard library only.
"""
import argparse
import gzip
import os
import pathlib
import random
import shutil
import sqlite3
import sys
import sysconfig


def words(rnd, count):
    return " ".join(rnd.choice(WORDS) for _ in range(count))


WORDS = (
    "order customer invoice payment shipped pending error timeout retry account balance session token request "
    "response warehouse article price discount total tax address city country email phone created updated"
).split()


def create_database(path, mib):
    rnd = random.Random(1)
    db = sqlite3.connect(path)
    db.executescript(
        "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
        "CREATE TABLE orders(id INTEGER PRIMARY KEY, customer INTEGER, at INTEGER, state TEXT, note TEXT);"
        "CREATE INDEX by_customer ON orders(customer, at);"
    )
    number = 0
    while os.path.getsize(path) < mib << 20:
        rows = [(n, rnd.randrange(50_000), 1_700_000_000 + n, rnd.choice(WORDS), words(rnd, 20)) for n in range(number, number + 20_000)]
        db.executemany("INSERT INTO orders VALUES(?,?,?,?,?)", rows)
        db.commit()
        number += 20_000
    db.close()


def change_database(path):
    rnd = random.Random(2)
    db = sqlite3.connect(path)
    db.execute("PRAGMA synchronous=OFF")
    (count,) = db.execute("SELECT max(id)+1 FROM orders").fetchone()
    db.executemany(
        "INSERT INTO orders VALUES(?,?,?,?,?)",
        [(n, rnd.randrange(50_000), 1_700_000_000 + n, "new", words(rnd, 20)) for n in range(count, count + count // 50)],
    )
    for _ in range(500):
        recent = count - 1 - int(rnd.expovariate(20 / count)) % count
        db.execute("UPDATE orders SET state=?, note=? WHERE id=?", ("changed", words(rnd, 20), recent))
    db.commit()
    db.close()


def write_log(path, seed, mib, mode="w"):
    rnd = random.Random(seed)
    with open(path, mode) as log:
        written, second = 0, 1_700_000_000 + seed * 86_400
        while written < mib << 20:
            second += rnd.randrange(3)
            line = f"{second} 10.0.{rnd.randrange(256)}.{rnd.randrange(256)} GET /{rnd.choice(WORDS)}/{rnd.randrange(10**6)} {rnd.choice((200, 200, 304, 500))}\n"
            log.write(line)
            written += len(line)


def copy_tree(source, target, limit):
    """Copies up to `limit` bytes of a real tree, links as links."""
    copied = 0
    for folder, folders, files in os.walk(source):
        folders.sort()
        place = target / pathlib.Path(folder).relative_to(source)
        place.mkdir(parents=True, exist_ok=True)
        for name in sorted(files):
            path = os.path.join(folder, name)
            if not (os.path.islink(path) or os.path.isfile(path)):
                continue
            size = os.lstat(path).st_size
            if copied + size > limit:
                return copied
            shutil.copy2(path, place / name, follow_symlinks=False)
            copied += size
    return copied


def odd_files(folder):
    folder.mkdir()
    (folder / "empty").write_bytes(b"")
    (folder / "one-byte").write_bytes(b"x")
    with open(folder / "sparse", "wb") as sparse:
        sparse.truncate(1 << 32)
        sparse.seek(1 << 30)
        sparse.write(b"in the middle of nothing")
    os.link(folder / "one-byte", folder / "hard-link")
    os.symlink("/nowhere/at all", folder / "dangling")
    os.mkfifo(folder / "pipe")
    with open(os.fsencode(folder) + b"/not-utf8-\xff\xfe", "wb") as odd:
        odd.write(b"a name that is only bytes")
    (folder / "new\nline").write_text("a name of two lines")
    os.utime(folder / "empty", ns=(0, 123_456_789))
    os.utime(folder / "one-byte", ns=(0, -1_000_000_001))
    os.chmod(folder / "empty", 0o4711)
    try:
        os.setxattr(folder / "empty", "user.comment", b"kept too")
    except OSError:
        pass  # this file system has no attributes


def create(root, mib):
    root.mkdir(parents=True)
    for name in ("database", "log", "media", "source"):
        (root / name).mkdir()
    create_database(root / "database/orders.sqlite", mib // 4)
    for age in range(3):
        write_log(root / f"log/access.log.{age}", age, mib // 24)
    rnd = random.Random(3)
    media = 0
    while media < mib // 6 << 20:
        size = rnd.randrange(1 << 20, 24 << 20)
        (root / f"media/photo-{media}.raw").write_bytes(rnd.randbytes(size))
        media += size
    left = mib // 2 << 20
    for place in (sysconfig.get_paths()["stdlib"], "/usr/share", "/usr/include", "/usr/lib/python3"):
        if left > 0 and os.path.isdir(place):
            left -= copy_tree(place, root / "source" / place.strip("/").replace("/", "-"), left)
    odd_files(root / "odd")


def night(root):
    change_database(root / "database/orders.sqlite")
    for age in (2, 1, 0):
        path = root / f"log/access.log.{age}"
        if age == 2:
            with open(path, "rb") as plain, gzip.GzipFile(root / "log/access.log.3.gz", "wb", mtime=0) as packed:
                shutil.copyfileobj(plain, packed)
            path.unlink()
        else:
            path.rename(root / f"log/access.log.{age + 1}")
    write_log(root / "log/access.log.0", 99, 4)
    write_log(root / "log/access.log.1", 98, 1, "a")
    sources = sorted(path for path in (root / "source").rglob("*.py") if path.is_file() and not path.is_symlink())
    for number, path in enumerate(sources[::50]):
        if number % 3 == 0:
            path.unlink()
        elif number % 3 == 1:
            path.rename(path.with_suffix(".moved"))
        else:
            path.write_text(path.read_text(errors="replace") + "# changed last night\n", errors="replace")
    (root / "odd/one-byte").write_bytes(b"y")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("create", "night"))
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--size", type=int, default=2048, metavar="MIB")
    args = parser.parse_args()
    if args.what == "create":
        create(args.dir, args.size)
    else:
        night(args.dir)
    return 0


if __name__ == "__main__":
    sys.exit(main())
