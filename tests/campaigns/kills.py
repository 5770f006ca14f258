#!/usr/bin/env python3
"""Kills every command that changes a repository, with SIGKILL at random moments. Afterwards the repository has to check clean, every
snapshot that the command was not to forget has to be there and give back what it was made of, and the same command has to come to
its end when it is given again.

    kills.py --binary target/release/strongroom [--kills 500] [--seed 1] [--command NAME]...

Standard library only.
"""
import argparse
import collections
import dataclasses
import json
import pathlib
import random
import shutil
import subprocess
import sys
import time

from common import CHEAP, Failed, Tool, Tree, manifest, workplace


@dataclasses.dataclass
class Command:
    """What is killed: the repository it begins from, its words, the snapshots it may take away, and how it ends."""

    base: Tool  # none for init
    words: list
    leaving: list = dataclasses.field(default_factory=list)
    ends: tuple = (0,)
    heals: bool = False  # something is damaged before
    once: bool = False  # what was done already is refused
    password: str = ""  # another than the campaign's
    stdin: object = None  # a file
    plans: bool = False  # the repository has the snapshots of a plan, and no others
    resumes: list = dataclasses.field(default_factory=list)  # what goes on where it was killed, if anything does
    fresh: object = None  # makes ready what lies beside the repository
    settles: list = dataclasses.field(default_factory=list)  # what ends the damage, once the command has done its part
    audit: object = None  # what has to be true in the end, besides


class Base:
    """Repositories with a history, one of which each kill gets a copy of."""

    def __init__(self, args, work):
        self.binary, self.work, self.random = args.binary, work, random.Random(args.seed)
        self.tree, self.told = Tree(work / "tree", args.seed), {}
        self.still = Tree(work / "still", args.seed + 1, files=8).path
        self.second, self.third = work / "second", work / "third"
        self.second.write_text("second")
        self.third.write_text("third")
        self.plain = Tool(args.binary, work / "plain")
        self.plain.init()
        self.plain.run("key", "add", *CHEAP, "--label", "second", "--new-password-file", self.second, "-q")
        for _ in range(4):
            before = packs_of(self.plain)
            self.back_up()
        newest = largest_of(packs_of(self.plain) - before)
        first = list(self.told)[0]
        self.plain.run("forget", first, "-q")
        del self.told[first]
        self.tree.change()

        self.held = self.copy_of(self.plain, "held")
        self.held.run("snapshot", "hold", list(self.told)[0], "--reason", "a kill", "-q")
        self.held.run("reserve", "set", "8MiB", "-q")
        self.covered = self.copy_of(self.plain, "covered")
        self.covered.run("parity", "add", "-q")
        self.damaged = self.copy_of(self.plain, "damaged")
        flip(self.random.choice(sorted(packs_of(self.damaged))))
        self.objects = self.copy_of(self.covered, "objects")
        for folder in ("log", "index"):
            files = files_of(self.objects, folder)
            flip(files[len(files) // 2])
        self.sourced = self.copy_of(self.plain, "sourced")
        before = packs_of(self.sourced)
        self.sourced.run("backup", self.still, "-q")
        flip(largest_of(packs_of(self.sourced) - before))
        self.lossy = self.copy_of(self.plain, "lossy")
        flip(self.lossy.repository / newest.relative_to(self.plain.repository))
        self.lossy.run("repair", "packs", "--read-data", "-q", codes=(4,))
        planned = self.lossy.run("repair", "snapshots", "--dry-run", "--json", codes=(4,)).stdout.splitlines()
        lines = [json.loads(line) for line in planned]
        self.lost = [line["original"] for line in lines if line["type"] == "repaired"]
        self.altered = self.copy_of(self.plain, "altered")
        self.altered.run("snapshot", "hold", list(self.told)[-1], "--reason", "to be lost", "-q")
        self.entry = files_of(self.altered, "log")[-1]
        flip(self.entry)
        self.unnamed = self.copy_of(self.plain, "unnamed")
        self.rotten = files_of(self.unnamed, "log")[-1]
        flip(self.rotten)
        self.appended = self.copy_of(self.plain, "appended")
        self.appended.run("key", "add", *CHEAP, "--label", "host", "--append-only", "--new-password-file", self.second, "-q")
        self.rows = work / "rows"
        self.rows.write_bytes(self.random.randbytes(3_000_000))
        self.plan()

    def plan(self):
        """A repository with a plan, whose domain is restored beside (`drill`) and in place (`recover`)."""
        self.site, self.config = self.work / "site", self.work / "plan.toml"
        self.planned = Tool(self.binary, self.work / "planned")
        self.planned.init()
        self.config.write_text(f"""version = 1
host_id = "box"
[repo.first]
url = "{self.work / 'repository'}"
[class.c]
rto = "1h"
[[domain]]
name = "site"
class = "c"
paths = ["{self.site}"]
to = ["first"]
[[drill]]
name = "whole"
domains = ["site"]
tier = "full"
scratch = "{self.work / 'scratch'}"
""")
        Tree(self.site, 7)
        self.whole = manifest(self.site)
        shutil.copytree(self.planned.repository, self.work / "repository")
        Tool(self.binary, self.work / "repository", state=self.work / "state").run("run", "--config", self.config, "-q")
        shutil.rmtree(self.planned.repository)
        (self.work / "repository").rename(self.planned.repository)

    def ruin(self):
        """What a recovery finds: the domain's files are others."""
        for place in (self.site, self.work / "scratch"):
            shutil.rmtree(place, ignore_errors=True)
        for path in self.work.glob(".*strongroom*"):
            shutil.rmtree(path, ignore_errors=True)
        Tree(self.site, 8)

    def has_stream(self, tool):
        with workplace() as target:
            tool.run("restore", "latest", "--target", target, "-q")
            if (target / "rows").read_bytes() != self.rows.read_bytes():
                raise Failed("the stream gives back something else")

    def is_whole(self, _tool):
        if manifest(self.site) != self.whole:
            raise Failed("the recovered files are not those of the snapshot")

    def is_cleared(self, _tool):
        if (self.work / "scratch").exists() and any((self.work / "scratch").iterdir()):
            raise Failed("a drill left something behind")

    def copy_of(self, tool, name):
        shutil.copytree(tool.repository, self.work / name)
        return Tool(self.binary, self.work / name)

    def back_up(self):
        self.tree.change()
        files = manifest(self.tree.path)
        self.told[self.plain.summary("backup", self.tree.path)["snapshot_id"]] = files

    def commands(self):
        """Everything that changes a repository, by name."""
        oldest = list(self.told)[0]
        slot = next(key["id"] for key in keys_of(self.plain) if key["label"] == "second")
        plain, covered, copied = self.plain, self.covered, self.work / "copied"
        at_once = ["prune", "--grace", "0s", "--max-unused", "0"]
        add = ["key", "add", *CHEAP, "--label", "third", "--new-password-file", self.second]
        return {
            "backup": Command(plain, ["backup", self.tree.path]),
            "backup with parity": Command(covered, ["backup", self.tree.path]),
            "forget": Command(plain, ["forget", oldest], [oldest], once=True),
            "hold": Command(plain, ["snapshot", "hold", oldest, "--reason", "a kill"], once=True),
            "release": Command(self.held, ["snapshot", "release", oldest, "--reason", "a kill"], once=True),
            "prune": Command(plain, at_once),
            "condemn": Command(plain, ["prune", "--max-unused", "0"]),
            "prune with parity": Command(covered, at_once),
            "check that is written down": Command(plain, ["check", "--read-data"]),
            "parity add": Command(plain, ["parity", "add"]),
            "parity drop": Command(covered, ["parity", "drop"]),
            "reserve set": Command(plain, ["reserve", "set", "32MiB"]),
            "reserve drop": Command(self.held, ["reserve", "drop"]),
            "key add": Command(plain, add, once=True),
            "key add --append-only": Command(plain, [*add, "--append-only"], once=True),
            "key remove": Command(plain, ["key", "remove", slot], once=True),
            "key passwd": Command(plain, ["key", "passwd", *CHEAP, "--new-password-file", self.third], once=True),
            "repair index": Command(plain, ["repair", "index"]),
            "repair packs": Command(
                self.damaged, ["repair", "packs", "--read-data", "--from", plain.repository], heals=True),
            "repair packs --from-source": Command(
                self.sourced, ["repair", "packs", "--read-data", "--from-source", self.still], heals=True),
            "repair snapshots": Command(
                self.lossy, ["repair", "snapshots", "--forget"], self.lost, ends=(0, 3), heals=True),
            "repair objects": Command(self.objects, ["repair", "objects"], heals=True),
            "repair log": Command(self.altered, ["repair", "log", "--accept-loss", int(self.entry.name)], heals=True),
            "repair lost-snapshots": Command(
                self.unnamed, ["repair", "lost-snapshots"], heals=True,
                settles=["repair", "log", "--accept-loss", int(self.rotten.name)]),
            "backup of an append-only password": Command(
                self.appended, ["backup", self.tree.path], password=self.second.read_text()),
            "backup of a stream": Command(
                plain, ["backup", "--stdin-filename", "rows"], stdin=self.rows, audit=self.has_stream),
            "drill": Command(self.planned, ["drill", "--config", self.config], fresh=self.ruin, audit=self.is_cleared, plans=True),
            "recover": Command(
                self.planned, ["recover", "site", "--config", self.config], fresh=self.ruin, audit=self.is_whole, plans=True,
                once=True, resumes=["recover", "--resume", "--config", self.config]),
            "copy": Command(plain, ["copy", "--to", copied]),
            "init": Command(None, ["init", *CHEAP, "--parity", "10%", "--reserve", "1MiB", "--label", "mine"], once=True),
        }


def keys_of(tool):
    return json.loads(tool.run("key", "list", "--json").stdout)


def files_of(tool, folder):
    return sorted(path for path in (tool.repository / folder).rglob("*") if path.is_file())


def packs_of(tool):
    return set(files_of(tool, "packs"))


def largest_of(packs):
    return max(packs, key=lambda pack: pack.stat().st_size)


def flip(path):
    """Turns one bit in the middle of a file."""
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


class Killer:
    def __init__(self, base, rnd):
        self.base, self.random, self.done = base, rnd, collections.Counter()
        self.commands, self.durations = base.commands(), {}

    def fresh(self, command):
        """A repository as it was before."""
        original = command.base
        place = self.base.work / "repository"
        copied = self.base.work / "copied"
        for old in (place, copied):
            shutil.rmtree(old, ignore_errors=True)
        if original:
            shutil.copytree(original.repository, place)
        Tool(self.base.binary, copied).init()
        state = self.base.work / "state"
        shutil.rmtree(state, ignore_errors=True)
        if command.fresh:
            command.fresh()
        return Tool(self.base.binary, place, state=state if command.plans else None)

    def as_killed(self, tool, command):
        """The one who gives the command."""
        return Tool(tool.binary, tool.repository, password=command.password) if command.password else tool

    def duration(self, name, command):
        if name not in self.durations:
            tool = self.as_killed(self.fresh(command), command)
            begun = time.monotonic()
            tool.run(*command.words, "-q", codes=command.ends, stdin=command.stdin)
            self.durations[name] = time.monotonic() - begun
        return self.durations[name]

    def kill(self, name):
        command = self.commands[name]
        limit = self.duration(name, command)
        tool = self.fresh(command)
        child = self.as_killed(tool, command).start(*command.words, "-q", stdin=command.stdin)
        time.sleep(self.random.uniform(0.0, limit))
        was_running = child.poll() is None
        child.kill()
        child.wait()
        if not was_running:
            self.done["too late"] += 1
            return False
        self.audit(name, tool, command)
        self.done[name] += 1
        return True

    def audit(self, name, tool, command):
        """What the kill left behind, and whether the same command comes to its end now."""
        if name == "key passwd" and tool.run("snapshots", codes=(0, 12)).returncode == 12:
            tool = Tool(tool.binary, tool.repository, password=self.base.third.read_text())
        kept = [] if name == "init" or command.plans else [one for one in self.base.told if one not in command.leaving]
        # What is damaged may not even open before it is repaired.
        if name != "init" and not command.heals:
            tool.run("check", "--read-data", "--no-record", "-q")
            self.require(tool, kept)
        if command.resumes:
            tool.run(*command.resumes, "-q", codes=())
        repeated = self.as_killed(tool, command).run(*command.words, "-q", codes=(), stdin=command.stdin)
        # What was done already is refused or changes nothing: which, is no matter here.
        if repeated.returncode not in command.ends and not command.once:
            raise Failed(f"again, it ends with {repeated.returncode}: {repeated.stderr}")
        if name == "init" and repeated.returncode != 0 and "already" not in repeated.stderr:
            raise Failed(f"init cannot be made again: {repeated.stderr}")
        if name == "init":
            parity, reserve = (tool.summary(policy, "status") for policy in ("parity", "reserve"))
            made = (parity["tenths_of_percent"], reserve["wanted"], keys_of(tool)[0]["label"])
            if made != (100, 1 << 20, "mine"):
                raise Failed(f"init was asked for more than it has made: {made}")
        if name == "key passwd" and repeated.returncode == 0:
            tool = Tool(tool.binary, tool.repository, password=self.base.third.read_text())
        if command.settles:
            tool.run(*command.settles, "-q")
        tool.run("check", "--read-data", "--no-record", "-q")
        self.require(tool, kept)
        if kept:
            snapshot = self.random.choice(kept)
            if tool.restored(snapshot, self.base.tree.path) != self.base.told[snapshot]:
                raise Failed(f"snapshot {snapshot} gives back something else")
        if name.startswith("reserve"):
            reserve = tool.summary("reserve", "status")
            if reserve["kept_free"] != (reserve["wanted"] or 0):
                raise Failed(f"the reserve is not as it is wanted: {reserve}")
        if command.audit:
            command.audit(tool)
        if name == "copy":
            copied = Tool(self.base.binary, self.base.work / "copied")
            copied.run("check", "--read-data", "-q")
            if len(copied.snapshots()) != len(self.base.told):
                raise Failed(f"{len(copied.snapshots())} copies of {len(self.base.told)} snapshots")

    @staticmethod
    def require(tool, kept):
        live = set(tool.snapshots())
        if lost := [snapshot for snapshot in kept if snapshot not in live]:
            raise Failed(f"lost: {lost}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, type=pathlib.Path)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--command", action="append", help="only these, by the names that the summary gives them")
    args = parser.parse_args()
    args.binary = args.binary.resolve()
    with workplace() as work:
        base = Base(args, work)
        killer = Killer(base, random.Random(args.seed))
        names = args.command or list(killer.commands)
        if unknown := set(names) - set(killer.commands):
            sys.exit(f"no command is called {unknown}: they are {list(killer.commands)}")
        killed, turn = 0, 0
        while killed < args.kills:
            name = names[turn % len(names)]
            try:
                killed += killer.kill(name)
            except (Failed, subprocess.SubprocessError) as error:
                sys.exit(f"{name}, seed {args.seed}, after {killed} kills: {error}")
            turn += 1
        counts = ", ".join(f"{name} {number}" for name, number in killer.done.items() if name != "too late")
        print(f"{killed} kills ({counts}; {killer.done['too late']} came too late): all clean, nothing lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
