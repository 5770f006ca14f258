#!/usr/bin/env python3
"""Runs commands with little memory and many threads, and looks at how much of it they had resident at most: no more than --memory
says, and 160 MB where nothing is said; among them backups that take over what a killed one stored, and of files with long attributes.
Then runs them with nothing said in a control group that is killed beyond 256 MB; says SKIPPED where none can be made.

    memory.py --binary target/release/strongroom [--short] [--seed 1]

Standard library only.
"""
import argparse
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

from common import Failed, Tool, workplace

MIB = 1 << 20
LEAST = 80
MANY = 16
# Pages of the program's own file, and of the libraries it is linked with, count as resident although nobody has to keep them.
SLACK = 6
# What is promised where nothing is said, in bytes, the program's own pages included.
PROMISED = 160_000_000
LIMIT = 256
# Control groups of version 2 and of version 1: where they are made, which file has the limit, and which one counts the killed.
GROUPS = (
    (pathlib.Path("/sys/fs/cgroup"), "memory.max", "memory.events"),
    (pathlib.Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.oom_control"),
)


class Data:
    """A directory with what takes memory: large files that compress and that do not, many small ones, one directory with many."""

    def __init__(self, place, seed, large, small):
        self.place, self.random = place, random.Random(seed)
        for name in ("noise", "text"):
            self.file(f"large/{name}", large * MIB, name)
        for number in range(small):
            self.file(f"small/{number % 97}/{number}", self.random.randrange(200, 9000), "text" if number % 3 else "noise")
        for number in range(small):
            self.file(f"many/{number}", 0, "noise")

    def file(self, name, length, kind):
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            while length > 0:
                piece = min(length, MIB)
                if kind == "noise":
                    file.write(self.random.randbytes(piece))
                else:
                    file.write(self.random.randbytes(piece // 2 + 1).hex().encode()[:piece])
                length -= piece

    def change(self):
        """So that a prune has something to write anew, and a backup something to find."""
        for path in sorted((self.place / "small").rglob("*"))[::5]:
            if path.is_file():
                path.unlink()
        with (self.place / "large" / "noise").open("r+b") as file:
            for at in range(0, os.fstat(file.fileno()).st_size, 3 * MIB):
                file.seek(at)
                file.write(self.random.randbytes(MIB // 2))


def commands(binary, work, data):
    """What is run, one after the other, each done before the next is asked for: a name, the repository, and the words."""
    tool, restored = Tool(binary, work / "one"), work / "restored"
    restore = ["restore", f"latest:{data.place}", "--target", restored]
    yield "init", "one", ["init"]
    yield "init of the second", "two", ["init"]
    yield "backup", "one", ["backup", data.place]
    data.change()
    yield "backup of what changed", "one", ["backup", data.place]
    yield "snapshots", "one", ["snapshots"]
    yield "ls --recursive", "one", ["ls", "--recursive", "latest"]
    yield "find", "one", ["find", "*7*"]
    yield "diff", "one", ["diff", tool.snapshots()[0], "latest", "--metadata"]
    yield "check", "one", ["check"]
    yield "check --read-data", "one", ["check", "--read-data"]
    yield "restore", "one", [*restore, "--verify"]
    for number in range(len(os.listdir(restored / "many"))):
        (restored / "many" / f"surplus-{number}").touch()
    yield "restore over it", "one", [*restore, "--delete"]
    yield "stats", "one", ["stats"]
    yield "stats --snapshot", "one", ["stats", "--snapshot", "latest"]
    for group in ("path", "snapshot", "host"):
        yield f"stats --by {group}", "one", ["stats", "--by", group]
    yield "stats --free", "one", ["stats", "--free", "1MiB"]
    yield "copy", "one", ["copy", "--to", work / "two"]
    yield "forget --dry-run", "one", ["forget", "--keep-last", "1", "--dry-run"]
    yield "forget", "one", ["forget", "--keep-last", "1"]
    yield "prune", "one", ["prune", "--grace", "0s", "--max-unused", "0"]
    yield "repair index", "one", ["repair", "index"]
    # Of a snapshot that is as the files are, everything comes back.
    max(tool.repository.glob("packs/**/*"), key=lambda path: path.stat().st_size if path.is_file() else 0).unlink()
    yield "repair packs", "one", ["repair", "packs", "--from-source", data.place]
    yield "repair snapshots", "one", ["repair", "snapshots"]
    yield "parity add", "one", ["parity", "add", "--overhead", "10%"]


def peak(tool, words, wrapper=()):
    """Runs a command; its exit code has to be 0. How much it had resident at most, in bytes."""
    with tempfile.TemporaryFile() as told:
        line = [*map(str, wrapper), tool.binary, *map(str, words)]
        child = subprocess.Popen(line, env=tool.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=told)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            told.seek(0)
            raise Failed(f"{words} ends with {child.returncode}\n{told.read().decode(errors='replace')[-4000:]}")
        # The kernel counts in units of 1024 bytes.
        return usage.ru_maxrss * 1024


def round_of(args, memory, threads):
    """Runs everything once in so many MiB, or with nothing said; what was said, and the peaks by name."""
    peaks, limit = {}, (memory + SLACK) * MIB if memory else PROMISED
    options = [f"--memory={memory}MiB"] if memory else []
    options += [f"--threads={threads}"] if threads else []
    said = " ".join(options) or "nothing said"
    with workplace() as work:
        data = Data(work / "data", args.seed, args.large, args.small)
        for name, repository, words in commands(args.binary, work, data):
            peaks[name] = peak(Tool(args.binary, work / repository), [*words, "-q", *options])
            if peaks[name] > limit:
                raise Failed(f"{name}, {said}, takes {peaks[name] / 1e6:.1f} MB, at most {limit / 1e6:.1f} are allowed")
    return said, peaks


def scarce(tool, name, words):
    """Runs a command with the least memory and many threads; what it had resident at most."""
    taken, limit = peak(tool, [*words, "-q", f"--memory={LEAST}MiB", f"--threads={MANY}"]), (LEAST + SLACK) * MIB
    if taken > limit:
        raise Failed(f"{name} takes {taken / 1e6:.1f} MB, at most {limit / 1e6:.1f} are allowed")
    print(f"{name}: {taken / 1e6:.0f} MB")


def taken_over(args):
    """What a killed backup stored is read in whole before it counts: more packs than there are threads, each in the longest blocks."""
    with workplace() as work:
        tool, noise = Tool(args.binary, work / "repository"), random.Random(args.seed)
        tool.init()
        packs = lambda: sum(path.is_file() for path in (tool.repository / "packs").rglob("*"))
        words = [tool.binary, "backup", "--stdin-filename", "noise", "-q", "--threads=2"]
        options = {"env": tool.environment, "stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(words, bufsize=0, **options) as backup:
            # Of seven bits: what is worth compressing gets longer blocks than what is not.
            seven = bytes(byte & 0x7F for byte in range(256))
            while packs() < MANY + 2:
                backup.stdin.write(noise.randbytes(MIB).translate(seven))
            backup.kill()
        if (tool.repository / "index").is_dir() and any(path.is_file() for path in (tool.repository / "index").rglob("*")):
            raise Failed("the backup that was killed had committed what it stored: nothing is left to take over")
        stored = packs()
        (work / "data").mkdir()
        (work / "data" / "file").write_text("anything")
        scarce(tool, f"backup that takes over {stored} packs", ["backup", work / "data"])
        stats = tool.summary("stats")
        listed = stats["data"]["packs"] + stats["metadata"]["packs"]
        if listed < stored:
            raise Failed(f"only {listed} of {stored} packs were taken over")


def heavy(args):
    """Files that are nothing but a name and an attribute as long as a page: a snapshot's nodes of few directories take much memory."""
    with workplace() as work:
        noise = random.Random(args.seed)
        for number in range(20_000):
            path = work / "data" / str(number % 80) / str(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            try:
                os.setxattr(path, "user.note", noise.randbytes(3500))
            except OSError as error:
                print(f"SKIPPED memory: cannot back up files with long attributes: {work} does not take them: {error}")
                return
        tool = Tool(args.binary, work / "repository")
        tool.init()
        for name in ("files with attributes", "the same again", "the same once more"):
            scarce(tool, f"backup of {name}", ["backup", work / "data"])


class Group:
    """A control group of processes that are killed when they take more than `LIMIT` MiB, with what the kernel caches for them."""

    def __init__(self, path, counts):
        self.path, self.counts = path, counts

    @staticmethod
    def make():
        """One, or none where none can be made."""
        for parent, limit, counts in GROUPS:
            path = parent / f"strongroom-memory-{os.getpid()}"
            try:
                path.mkdir()
            except OSError:
                continue
            try:
                # The kernel has made the file, or does not limit memory here.
                with open(path / limit, "r+", encoding="ascii") as file:
                    file.write(str(LIMIT * MIB))
                return Group(path, counts)
            except OSError:
                path.rmdir()
        return None

    def remove(self):
        # The kernel lets go of the last process a little later than its parent hears of it.
        for _ in range(50):
            try:
                return self.path.rmdir()
            except OSError:
                time.sleep(0.1)

    def wrapper(self):
        """Puts the shell into the group, and the command in the shell's place."""
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', self.path / "cgroup.procs"]

    def kills(self):
        return int(dict(line.split() for line in (self.path / self.counts).read_text().splitlines())["oom_kill"])


def in_a_group(args):
    """Runs everything as it is without a word about memory."""
    group = Group.make()
    if group is None:
        print("SKIPPED memory: cannot make a control group that limits it: that takes root, and a kernel that lets it be made here")
        return
    try:
        with workplace() as work:
            data = Data(work / "data", args.seed, args.large, args.small)
            for name, repository, words in commands(args.binary, work, data):
                peak(Tool(args.binary, work / repository), [*words, "-q"], group.wrapper())
                if group.kills():
                    raise Failed(f"{name} takes more than {LIMIT} MiB")
    finally:
        group.remove()
    print(f"all commands with default options live in a control group of {LIMIT} MiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, type=pathlib.Path)
    parser.add_argument("--short", action="store_true", help="less data, and less of what could be run")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.binary = args.binary.resolve()
    args.large, args.small = (40, 1500) if args.short else (256, 30_000)
    # Without a word as many threads as there are processors.
    rounds = [(LEAST, MANY), (None, None)] if args.short else [(m, t) for m in (LEAST, 96, None) for t in (2, None, MANY)]
    try:
        for memory, threads in rounds:
            said, peaks = round_of(args, memory, threads)
            print(f"{said}: " + ", ".join(f"{name} {taken / 1e6:.0f}" for name, taken in peaks.items()) + " MB")
        taken_over(args)
        heavy(args)
        in_a_group(args)
    except Failed as error:
        sys.exit(f"seed {args.seed}: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
