#!/usr/bin/env python3
"""What backup programs say of damage, kills and full disks: the same cases for each, in one table.

    honesty.py --binary target/release/strongroom [--tools strongroom,strongroom-anew,restic,rustic,borg1,borg2]
               [--require restic,rustic,borg1] [--flips 40] [--cuts 12] [--kills 10] [--seed 1] [--json FILE]

Programs that are not in PATH are left out, unless --require names them: then nothing is begun. One corpus for all, made from the
seed; places of damage are drawn from the same seed, half of them a byte among all bytes of the repository, half a file first (so that
small files get their share).

    flip    one bit of the repository is turned
    cut     a file of the repository loses its second half, or is gone
            of both: did the check that reads everything exit with another code than 0? did a restore into an empty
            directory? is what it restored right? does a file that it left hold bytes that were never in it (zeros, say), whatever
            the exit code was? (A file whose name says that it is not whole is not taken for one of the source's.)
    kill    a backup gets SIGKILL at a random moment. Then: does the check exit with 0? does the next backup, with nothing done by
            hand? is what it stored restored right?
    full    a backup into a file system that is too small. Then: did it exit with another code than 0? is the earlier snapshot restored
            right while the disk is full? can space be made with the program's own commands? does a backup that fits then work?

The repository has two snapshots when it is damaged: an older one that is restored as the latest is wrong data, too. strongroom-anew is
a machine that has not seen the repository before: to it a log whose newest file is gone is a whole log, so that its cuts may be silent.

A check or restore that exits with 0 though data is missing or wrong is *silent*: there must be none. A check that exits with 0 where
everything can be restored, and one that tells damage which a restore does not meet, are both right. `full` mounts a tmpfs and is
left out for those who may not, with a line that says SKIPPED. Exit code 1 if strongroom was silent, blocked or wrong anywhere, hung or crashed
(which is no way to tell of damage), or if no kill met a backup: wrong data counts whatever the exit code was.
"""
import argparse
import filecmp
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

PASSWORD = "honesty"
TIMEOUT = 300


class Program:
    """One program, one repository. Caches are off where that is possible: they would hide damage of small files."""

    def __init__(self, work, binary=None):
        self.repository, self.home, self.binary = work / "repository", work / "home", binary
        self.home.mkdir(parents=True, exist_ok=True)
        self.env = {**os.environ, "HOME": str(self.home), "XDG_CACHE_HOME": str(self.home / "cache"), **self.variables(work)}

    def run(self, *command, cwd=None):
        """Runs one command and returns its exit code; one that hangs counts as failed."""
        try:
            done = subprocess.run([str(word) for word in command], env=self.env, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            return -1
        return done.returncode

    def is_answer(self, code):
        """Whether a command came to its end by itself and with an exit code that means something, be it good or bad."""
        return code >= 0

    def backup(self, source):
        return self.run(*self.backup_command(source), cwd=source)

    def start_backup(self, source):
        return subprocess.Popen(
            [str(word) for word in self.backup_command(source)], env=self.env, cwd=source,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


class Strongroom(Program):
    name = "strongroom"
    # All that its documents have; a panic ends with another one.
    codes = (0, 1, 2, 3, 4, 5, 10, 12)

    def is_answer(self, code):
        return code in self.codes

    def variables(self, work):
        return {"STRONGROOM_REPOSITORY": str(self.repository), "STRONGROOM_PASSWORD": PASSWORD, "XDG_STATE_HOME": str(self.home / "state")}

    def init(self):
        return self.run(self.binary, "init")

    def backup_command(self, source):
        return [self.binary, "backup", source]

    def check(self):
        return self.run(self.binary, "check", "--read-data")

    def restore(self, source, target):
        return self.run(self.binary, "restore", f"latest:{source}", "--target", target)

    def make_room(self):
        return self.run(self.binary, "forget", "--keep-last", "1") or self.run(self.binary, "prune", "--grace", "0s")


class StrongroomAnew(Strongroom):
    name = "strongroom-anew"

    def variables(self, work):
        return {**super().variables(work), "STRONGROOM_NO_STATE": "1"}


class Restic(Program):
    name = "restic"

    def variables(self, work):
        return {"RESTIC_REPOSITORY": str(self.repository), "RESTIC_PASSWORD": PASSWORD}

    def init(self):
        return self.run("restic", "init", "--no-cache")

    def backup_command(self, source):
        return ["restic", "backup", "--no-cache", source]

    def check(self):
        return self.run("restic", "check", "--no-cache", "--read-data")

    def restore(self, source, target):
        return self.run("restic", "restore", "--no-cache", f"latest:{source}", "--target", target)

    def make_room(self):
        return self.run("restic", "forget", "--no-cache", "--keep-last", "1", "--prune")


class Rustic(Program):
    name = "rustic"

    def variables(self, work):
        return {"RUSTIC_REPOSITORY": str(self.repository), "RUSTIC_PASSWORD": PASSWORD, "RUSTIC_NO_PROGRESS": "true", "RUSTIC_NO_CACHE": "true"}

    def init(self):
        return self.run("rustic", "init")

    def backup_command(self, source):
        return ["rustic", "backup", source]

    def check(self):
        return self.run("rustic", "check", "--read-data")

    def restore(self, source, target):
        return self.run("rustic", "restore", f"latest:{source}", target)

    def make_room(self):
        return self.run("rustic", "forget", "--keep-last", "1", "--prune", "--instant-delete")


class Borg1(Program):
    name = "borg1"
    program = "borg1" if shutil.which("borg1") else "borg"
    number = 0

    def variables(self, work):
        return {"BORG_REPO": str(self.repository), "BORG_PASSPHRASE": PASSWORD, "BORG_BASE_DIR": str(work / "home"), "BORG_EXIT_CODES": "modern"}

    def init(self):
        return self.run(self.program, "init", "--encryption", "repokey")

    def backup_command(self, source):
        self.number += 1
        return [self.program, "create", f"::{self.number}-{time.monotonic_ns()}", "."]

    def check(self):
        return self.run(self.program, "check", "--verify-data")

    list_command = ("list", "--last", "1", "--format", "::{archive}")

    def restore(self, source, target):
        target.mkdir(parents=True)
        listed = subprocess.run([self.program, *self.list_command], env=self.env, capture_output=True, text=True)
        # Without an archive there is nothing to restore: whoever asks sees that.
        return self.run(self.program, "extract", listed.stdout.strip(), cwd=target) if listed.stdout.strip() else listed.returncode or 1

    def make_room(self):
        return self.run(self.program, "prune", "--keep-last", "1") or self.run(self.program, "compact")


class Borg2(Borg1):
    name = program = "borg2"

    def init(self):
        return self.run("borg2", "repo-create", "--encryption", "aes256-ocb")

    def backup_command(self, source):
        return ["borg2", "create", "honesty", "."]

    list_command = ("repo-list", "--last", "1", "--format", "aid:{id}")

    def make_room(self):
        return self.run("borg2", "prune", "--keep", "1", "honesty") or self.run("borg2", "compact")


PROGRAMS = {program.name: program for program in (Strongroom, StrongroomAnew, Restic, Rustic, Borg1, Borg2)}


def make_source(folder, rnd, mib):
    """Small texts, a file that changes in places, and noise."""
    folder.mkdir(parents=True)
    for number in range(60):
        place = folder / f"d{number % 7}"
        place.mkdir(exist_ok=True)
        (place / f"text-{number}").write_text(" ".join(str(rnd.randrange(1000)) for _ in range(rnd.randrange(10, 4000))))
    (folder / "table").write_bytes(b"".join(rnd.randbytes(64) + bytes(448) for _ in range(8 << 10)))
    for number in range(max(1, mib - 4)):
        (folder / f"noise-{number}").write_bytes(rnd.randbytes(1 << 20))


def files(top):
    """The names of all files below a folder."""
    return {path.relative_to(top) for path in top.rglob("*") if path.is_file()}


def same(left, right):
    """Whether two trees have the same files with the same bytes."""
    names = files(left)
    return names == files(right) and all(filecmp.cmp(left / name, right / name, shallow=False) for name in names)


def substituted(source, target):
    """Whether a restored file, or one that nobody had, holds bytes that the source does not have there. A file that is only shorter
    lacks data, but has no wrong ones."""
    for name in files(target):
        if re.search(r"\.strongroom-incomplete(-\d+)?$", name.name):
            continue
        if not (source / name).is_file():
            return True
        with open(source / name, "rb") as left, open(target / name, "rb") as right:
            restored_bytes = right.read()
            if left.read(len(restored_bytes)) != restored_bytes:
                return True
    return False


def restored(program, source, work):
    """The exit code of a restore, and whether what it left is right."""
    target = work / "restored"
    shutil.rmtree(target, ignore_errors=True)
    code = program.restore(source, target)
    return code, target.is_dir() and same(source, target)


def place(repository, rnd, turn):
    """A file of the repository and an offset in it."""
    files = sorted(path for path in repository.rglob("*") if path.is_file() and path.stat().st_size > 0)
    if turn % 2:
        path = rnd.choice(files)
    else:
        path = rnd.choices(files, [path.stat().st_size for path in files])[0]
    return path, rnd.randrange(path.stat().st_size)


def damaged(program, source, work, tally):
    """Looks at a damaged repository."""
    checked = program.check()
    code, right = restored(program, source, work)
    tally["cases"] += 1
    tally["check told"] += checked != 0
    tally["check silent"] += checked == 0 and not right
    tally["restore told"] += code != 0
    tally["restore right"] += right
    tally["restore silent"] += code == 0 and not right
    tally["wrong data"] += substituted(source, work / "restored")
    tally["hung or crashed"] += not (program.is_answer(checked) and program.is_answer(code))


def writable(path):
    """Some write their files read-only."""
    path.chmod(0o600)
    return path


def flip(path, offset, rnd, _turn):
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << rnd.randrange(8)
    writable(path).write_bytes(content)


def cut(path, _offset, _rnd, turn):
    if turn % 4 < 2:
        os.truncate(writable(path), path.stat().st_size // 2)
    else:
        path.unlink()


def damages(program, source, work, rnd, count, harm):
    """Damages the repository so many times, each time as it was before: a check may write to it, or remember something."""
    columns = ("cases", "check told", "check silent", "restore told", "restore right", "restore silent", "wrong data", "hung or crashed")
    tally = dict.fromkeys(columns, 0)
    kept = work / "kept"
    folders = [(program.repository, kept / "repository"), (program.home, kept / "home")]
    for folder, copy in folders:
        shutil.copytree(folder, copy, symlinks=True)
    for turn in range(count):
        path, offset = place(program.repository, rnd, turn)
        harm(path, offset, rnd, turn)
        damaged(program, source, work, tally)
        for folder, copy in folders:
            shutil.rmtree(folder)
            shutil.copytree(copy, folder, symlinks=True)
    shutil.rmtree(kept)
    return tally


def kills(program, source, work, rnd, count):
    tally = dict.fromkeys(("cases", "check clean", "next backup works", "restore right"), 0)

    def change():
        for number in range(8):
            (source / f"noise-{number}").write_bytes(rnd.randbytes(4 << 20))

    change()
    begun = time.monotonic()
    if program.backup(source) != 0:
        raise SystemExit(f"{program.name}: a backup failed before anything was killed")
    whole = time.monotonic() - begun
    for _ in range(count):
        change()
        backup = program.start_backup(source)
        time.sleep(rnd.uniform(0.1, 0.95) * whole)
        if backup.poll() is None:
            os.killpg(backup.pid, 9)
            tally["cases"] += 1
        backup.wait()
        clean = program.check() == 0
        works = program.backup(source) == 0
        code, right = restored(program, source, work)
        tally["check clean"] += clean
        tally["next backup works"] += works
        tally["restore right"] += code == 0 and right
    tally["tries"] = count
    return tally


def full(kind, binary, work, rnd):
    """On a tmpfs that holds the first backup and not the second."""
    disk, source, tools = work / "disk", work / "full-source", work / "full-tools"
    disk.mkdir()
    tools.mkdir()
    make_source(source, rnd, 12)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], capture_output=True).returncode != 0:
        return None
    try:
        program = kind(tools, binary)
        program.repository = disk / "repository"
        program.env.update({name: str(program.repository) for name in program.env if name.endswith(("_REPOSITORY", "BORG_REPO"))})
        if program.init() != 0 or program.backup(source) != 0:
            raise SystemExit(f"{program.name}: the first backup did not fit")
        before = work / "full-before"
        shutil.copytree(source, before)
        (source / "much").write_bytes(rnd.randbytes(80 << 20))
        told = program.backup(source) != 0
        # Paths are those of the source: what is restored is compared with what was there then.
        code, _ = restored(program, source, work)
        right = same(before, work / "restored")
        (source / "much").unlink()
        room = program.make_room() == 0
        fits = program.backup(source) == 0
        fits_code, fits_right = restored(program, source, work)
        return {
            "told": told, "earlier restores while full": code == 0 and right, "room can be made": room,
            "next backup works": fits, "and restores right": fits_code == 0 and fits_right, "check clean": program.check() == 0,
        }
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def table(results):
    """The figures of all programs, as Markdown."""
    for case in ("flip", "cut", "kill", "full"):
        rows = {name: result[case] for name, result in results.items() if result.get(case)}
        if not rows:
            continue
        columns = list(next(iter(rows.values())))
        print(f"\n| {case} | " + " | ".join(columns) + " |")
        print("|---|" + "--:|" * len(columns))
        for name, row in rows.items():
            words = {True: "yes", False: "**no**"}
            print(f"| {name} | " + " | ".join(words[row[column]] if isinstance(row[column], bool) else str(row[column]) for column in columns) + " |")


def faults(result):
    """What must not be."""
    found = []
    for case in ("flip", "cut"):
        found += [f"{case}: {what}" for what in ("check silent", "restore silent", "wrong data", "hung or crashed") if result[case][what]]
    kill = result["kill"]
    found += ["kill: none came while a backup was at work"] if kill["tries"] and not kill["cases"] else []
    found += [f"kill: {what}" for what in ("check clean", "next backup works", "restore right") if kill[what] != kill["tries"]]
    found += [f"full: {what}: no" for what, holds in (result["full"] or {}).items() if not holds]
    return found


def verdict(results):
    """What strongroom did that must not be."""
    wrong = faults(results["strongroom"]) if "strongroom" in results else []
    anew = faults(results["strongroom-anew"]) if "strongroom-anew" in results else []
    # Who has not seen the log before may take a cut one for a whole one, but bytes that nobody stored are wrong for everybody.
    return wrong + [f"anew: {line}" for line in anew if line not in ("cut: check silent", "cut: restore silent")]


def is_here(name):
    """Whether a program can be run: strongroom is given, others are in PATH."""
    kind = PROGRAMS[name]
    return issubclass(kind, Strongroom) or shutil.which(getattr(kind, "program", name)) is not None


def names(parser, option, text):
    """Programs as an option lists them."""
    listed = [name for name in text.split(",") if name]
    for name in listed:
        if name not in PROGRAMS:
            parser.error(f"{option} {name}: known are {', '.join(PROGRAMS)}")
    return listed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, type=pathlib.Path, help="a built strongroom")
    parser.add_argument("--tools", default=",".join(PROGRAMS))
    parser.add_argument("--require", default="", metavar="TOOLS", help="fail if one of these is missing")
    parser.add_argument("--flips", type=int, default=40)
    parser.add_argument("--cuts", type=int, default=12)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    results, tools = {}, names(parser, "--tools", args.tools)
    missing = [name for name in names(parser, "--require", args.require) if name not in tools or not is_here(name)]
    if missing:
        sys.exit(f"required, but not in --tools or not in PATH: {', '.join(missing)}")
    for name in tools:
        kind = PROGRAMS[name]
        if not is_here(name):
            print(f"{name} is not in PATH: left out", file=sys.stderr)
            continue
        binary = args.binary.resolve()
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as work:
            work = pathlib.Path(work)
            rnd = random.Random(args.seed)
            source = work / "source"
            make_source(source, rnd, 24)
            program = kind(work, binary)
            if program.init() != 0 or program.backup(source) != 0:
                raise SystemExit(f"{name}: init or the first backup failed")
            (source / "second").write_text("only the latest snapshot has this")
            if program.backup(source) != 0 or program.check() != 0 or restored(program, source, work) != (0, True):
                raise SystemExit(f"{name}: backup, check or restore failed before anything was damaged")
            results[name] = {
                "flip": damages(program, source, work, rnd, args.flips, flip),
                "cut": damages(program, source, work, rnd, args.cuts, cut),
                "kill": kills(program, source, work, rnd, args.kills),
                "full": full(kind, binary, work, rnd),
            }
            print(f"{name}: {json.dumps(results[name])}", file=sys.stderr)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))
    table(results)
    if any(result["full"] is None for result in results.values()):
        print("SKIPPED full disks: a tmpfs cannot be mounted here", file=sys.stderr)
    wrong = verdict(results)
    for line in wrong:
        print(f"strongroom, {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
