#!/usr/bin/env python3
"""Kills every command that changes a repository, with SIGKILL at random moments. Afterwards the repository has to check clean, every
snapshot that the command was not to forget has to be there and give back what it was made of, and the same command has to come to
its end when it is given again, and then has to have done what it is for. Each command in turn is given until it was killed: none is passed
over because it was faster.

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
import signal
import subprocess
import sys
import time
import typing

from common import CHEAP, PASSWORD, Failed, Tool, Tree, manifest, workplace

# How often a command is given that ends before it is killed, each time for a shorter while, until this machine is taken for one that cannot
# kill it.
TRIES, SHORTER = 30, 0.8
SECOND, THIRD = "second", "third"


@dataclasses.dataclass
class Command:
    """What is killed: the repository it begins from, its words, the snapshots it may take away, and how it ends."""

    base: Tool  # none for init
    words: list
    is_done: typing.Callable = lambda tool: True  # whether what it is for is so in the end; a repair is for a check that passes
    leaving: list = dataclasses.field(default_factory=list)
    ends: tuple = (0,)
    heals: bool = False  # something is damaged before
    already: str = ""  # the code of the error that says that it was done already
    password: str = ""  # another than the campaign's
    stdin: object = None  # a file
    plans: bool = False  # the repository has the snapshots of a plan, and no others
    resumes: list = dataclasses.field(default_factory=list)  # what goes on where it was killed, if anything does
    fresh: object = None  # makes ready what lies beside the repository
    settles: list = dataclasses.field(default_factory=list)  # what ends the damage, once the command has done its part


class Base:
    """Repositories with a history, one of which each kill gets a copy of."""

    def __init__(self, args, work):
        self.binary, self.work, self.random = args.binary, work, random.Random(args.seed)
        self.tree, self.told = Tree(work / "tree", args.seed), {}
        self.still = Tree(work / "still", args.seed + 1, files=8).path
        self.second, self.third = work / "second", work / "third"
        self.second.write_text(SECOND)
        self.third.write_text(THIRD)
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
        self.unnamed.run("backup", self.still, "-q")
        self.rotten = files_of(self.unnamed, "log")[-1]
        flip(self.rotten)
        self.unindexed = self.copy_of(self.plain, "unindexed")
        files_of(self.unindexed, "index")[0].unlink()
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
            return (target / "rows").exists() and (target / "rows").read_bytes() == self.rows.read_bytes()

    def has_tree(self, tool):
        return tool.restored("latest", self.tree.path) == manifest(self.tree.path)

    def has_still(self, tool):
        return tool.restored("latest", self.still) == manifest(self.still)

    def is_pruned(self, tool):
        """What nobody needs is at least condemned, and gone after one run more: packs that the killed one had written, or taken out of the index
        and not yet deleted, might be those of a backup at work to the next one, which leaves them to a later run whatever the grace is."""
        words = ["prune", "--grace", "0s", "--max-unused", "0"]
        if tool.summary(*words, "--dry-run")["packs_condemned"]:
            return False
        tool.run(*words, "-q")
        left = tool.summary(*words, "--dry-run")
        return self.lacks_packs(tool) and not any(left[f"packs_{what}"] for what in ("condemned", "removed", "waiting", "stray"))

    def is_condemned(self, tool):
        """What nobody needs waits to be deleted, and is not deleted yet."""
        left = tool.summary("prune", "--max-unused", "0", "--dry-run")
        return left["packs_waiting"] > 0 and not self.lacks_packs(tool) and not left["packs_condemned"]

    def lacks_packs(self, tool):
        """Whether packs are gone that the repository had in the beginning."""
        return bool({path.name for path in packs_of(self.plain)} - {path.name for path in packs_of(tool)})

    def has_copies(self, _tool):
        copied = Tool(self.binary, self.work / "copied")
        copied.run("check", "--read-data", "-q")
        return len(copied.snapshots()) == len(self.told)

    def is_whole(self, _tool):
        return manifest(self.site) == self.whole

    def is_drilled(self, tool):
        """A drill has passed, and none left anything behind."""
        domain = json.loads(tool.run("status", "--config", self.config, "--json").stdout.splitlines()[0])
        is_cleared = not ((self.work / "scratch").exists() and any((self.work / "scratch").iterdir()))
        return is_cleared and domain["drill"] and domain["drill"]["outcome"] == "pass"

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
        add = ["key", "add", *CHEAP, "--label", "third", "--new-password-file", self.third]
        return {
            "backup": Command(plain, ["backup", self.tree.path], self.has_tree),
            "backup with parity": Command(covered, ["backup", self.tree.path], self.has_tree),
            "forget": Command(
                plain, ["forget", oldest], lambda tool: oldest not in tool.snapshots(), leaving=[oldest], already="no-snapshot"),
            "hold": Command(plain, ["snapshot", "hold", oldest, "--reason", "a kill"], lambda tool: hold_of(tool, oldest) == "a kill"),
            "release": Command(
                self.held, ["snapshot", "release", oldest, "--reason", "a kill"], lambda tool: hold_of(tool, oldest) is None),
            "prune": Command(plain, at_once, self.is_pruned),
            "condemn": Command(plain, ["prune", "--max-unused", "0"], self.is_condemned),
            "prune with parity": Command(covered, at_once, self.is_pruned),
            "check that is written down": Command(
                plain, ["check", "--read-data"], lambda tool: tool.summary("check", "--no-record")["packs_never_read"] == 0),
            "parity add": Command(plain, ["parity", "add"], is_covered),
            "parity drop": Command(
                covered, ["parity", "drop"],
                lambda tool: not files_of(tool, "parity") and tool.summary("parity", "status")["tenths_of_percent"] is None),
            "reserve set": Command(plain, ["reserve", "set", "32MiB"], lambda tool: reserve_of(tool) == (32 << 20, 32 << 20)),
            "reserve drop": Command(self.held, ["reserve", "drop"], lambda tool: reserve_of(tool) == (None, 0)),
            "key add": Command(plain, add, lambda tool: tool.opens(THIRD) and not is_append_only(tool, THIRD)),
            "key add --append-only": Command(
                plain, [*add, "--append-only"], lambda tool: tool.opens(THIRD) and is_append_only(tool, THIRD)),
            "key remove": Command(
                plain, ["key", "remove", slot], lambda tool: not tool.opens(SECOND), already="unknown-keyslot"),
            "key passwd": Command(
                plain, ["key", "passwd", *CHEAP, "--new-password-file", self.third],
                lambda tool: tool.opens(THIRD) and not tool.opens(PASSWORD)),
            "repair index": Command(self.unindexed, ["repair", "index"], heals=True),
            "repair packs": Command(
                self.damaged, ["repair", "packs", "--read-data", "--from", plain.repository], heals=True),
            "repair packs --from-source": Command(
                self.sourced, ["repair", "packs", "--read-data", "--from-source", self.still], heals=True),
            "repair snapshots": Command(
                self.lossy, ["repair", "snapshots", "--forget"], leaving=self.lost, ends=(0, 3), heals=True),
            "repair objects": Command(self.objects, ["repair", "objects"], heals=True),
            "repair log": Command(self.altered, ["repair", "log", "--accept-loss", int(self.entry.name)], heals=True),
            "repair lost-snapshots": Command(
                self.unnamed, ["repair", "lost-snapshots"], self.has_still, heals=True,
                settles=["repair", "log", "--accept-loss", int(self.rotten.name)]),
            "backup of an append-only password": Command(
                self.appended, ["backup", self.tree.path], self.has_tree, password=SECOND),
            "backup of a stream": Command(
                plain, ["backup", "--stdin-filename", "rows"], self.has_stream, stdin=self.rows),
            "drill": Command(self.planned, ["drill", "--config", self.config], self.is_drilled, fresh=self.ruin, plans=True),
            "recover": Command(
                self.planned, ["recover", "site", "--config", self.config], self.is_whole, fresh=self.ruin, plans=True,
                already="recovery-kept", resumes=["recover", "--resume", "--config", self.config]),
            "copy": Command(plain, ["copy", "--to", copied], self.has_copies),
            "init": Command(
                None, ["init", *CHEAP, "--parity", "10%", "--reserve", "1MiB", "--label", "mine"], is_made, already="repository-exists"),
        }


def keys_of(tool):
    return json.loads(tool.run("key", "list", "--json").stdout)


def is_append_only(tool, password):
    """Whether the keyslot of a password can only add."""
    return next(key["append_only"] for key in keys_of(tool.with_password(password)) if key["current"])


def hold_of(tool, snapshot):
    """Why a snapshot is held; none if it is not."""
    return {one["id"]: one.get("hold") for one in json.loads(tool.run("snapshots", "--json").stdout)}[snapshot]


def reserve_of(tool):
    """How much is to be kept free, and how much is."""
    reserve = tool.summary("reserve", "status")
    return reserve["wanted"], reserve["kept_free"]


def is_covered(tool):
    """Whether everything has parity."""
    status = tool.summary("parity", "status")
    counts = {of["folder"]: of for of in status["coverage"]}
    return status["tenths_of_percent"] and counts["packs"]["covered"] > 0 and not any(of["uncovered"] for of in counts.values())


def is_made(tool):
    """Whether an `init` has made what it was asked for."""
    return (tool.summary("parity", "status")["tenths_of_percent"], reserve_of(tool)[0], keys_of(tool)[0]["label"]) == (100, 1 << 20, "mine")


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
        self.base, self.random, self.done, self.late = base, rnd, collections.Counter(), 0
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
        return tool.with_password(command.password) if command.password else tool

    def duration(self, name, command):
        """How long a command takes that nobody interferes with."""
        if name not in self.durations:
            tool = self.fresh(command)
            begun = time.monotonic()
            self.as_killed(tool, command).run(*command.words, "-q", codes=command.ends, stdin=command.stdin)
            self.durations[name] = time.monotonic() - begun
        return self.durations[name]

    def kill(self, name):
        """Gives a command until it was killed while it ran."""
        command = self.commands[name]
        limit = self.duration(name, command)
        for _ in range(TRIES):
            tool = self.fresh(command)
            child = self.as_killed(tool, command).start(*command.words, "-q", stdin=command.stdin)
            time.sleep(self.random.uniform(0.0, limit))
            child.kill()
            if child.wait() == -signal.SIGKILL:
                self.audit(name, tool, command)
                self.done[name] += 1
                return
            self.late += 1
            limit *= SHORTER
        raise Failed(f"{TRIES} times it came to its end before it was killed")

    def audit(self, name, tool, command):
        """What the kill left behind, and whether the same command comes to its end now and does what it is for."""
        if name == "key passwd" and not tool.opens(PASSWORD):
            tool = tool.with_password(THIRD)
        kept = [] if name == "init" or command.plans else [one for one in self.base.told if one not in command.leaving]
        # What is damaged may not even open before it is repaired.
        if name != "init" and not command.heals:
            tool.run("check", "--read-data", "--no-record", "-q")
            self.require(tool, kept)
        if command.resumes:
            tool.again(*command.resumes, already="no-recovery")
        self.as_killed(tool, command).again(*command.words, codes=command.ends, already=command.already, stdin=command.stdin)
        if name == "key passwd":
            tool = tool.with_password(THIRD)
        if command.settles:
            tool.run(*command.settles, "-q")
        tool.run("check", "--read-data", "--no-record", "-q")
        self.require(tool, kept)
        if kept:
            snapshot = self.random.choice(kept)
            if tool.restored(snapshot, self.base.tree.path) != self.base.told[snapshot]:
                raise Failed(f"snapshot {snapshot} gives back something else")
        if not command.is_done(tool):
            raise Failed("again, it says that it is done, and is not")

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
        for killed in range(args.kills):
            name = names[killed % len(names)]
            try:
                killer.kill(name)
            except (Failed, subprocess.SubprocessError) as error:
                sys.exit(f"{name}, seed {args.seed}, after {killed} kills: {error}")
        counts = ", ".join(f"{name} {number}" for name, number in killer.done.items())
        print(f"{args.kills} kills ({counts}; {killer.late} came too late and were made again): all clean, all done in the end, nothing lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
