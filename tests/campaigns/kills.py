#!/usr/bin/env python3
"""Kills every command that changes a repository, with SIGKILL at random moments. Afterwards the repository has to check clean, every
snapshot that the command was not to forget has to be there and give back what it was made of, and the same command has to come to
its end when it is given again.

    kills.py --binary target/release/strongroom [--kills 500] [--seed 1] [--command NAME]...

Standard library only.
"""
import argparse
import collections
import json
import pathlib
import random
import shutil
import subprocess
import sys
import time

from common import CHEAP, Failed, Tool, Tree, manifest, workplace


class Base:
    """A repository with a history, which each kill gets a copy of."""

    def __init__(self, args, work):
        self.binary, self.work, self.random = args.binary, work, random.Random(args.seed)
        self.tree, self.told = Tree(work / "tree", args.seed), {}
        self.password = work / "second"
        self.password.write_text("second")
        self.plain, self.covered, self.damaged = (Tool(args.binary, work / name) for name in ("plain", "covered", "damaged"))
        self.plain.init()
        self.plain.run("key", "add", *CHEAP, "--label", "second", "--new-password-file", self.password, "-q")
        for _ in range(4):
            self.back_up()
        first = list(self.told)[0]
        self.plain.run("forget", first, "-q")
        del self.told[first]
        self.tree.change()
        shutil.copytree(self.plain.repository, self.covered.repository)
        self.covered.run("parity", "add", "-q")
        shutil.copytree(self.plain.repository, self.damaged.repository)
        packs = sorted(path for path in (self.damaged.repository / "packs").rglob("*") if path.is_file())
        pack = self.random.choice(packs)
        pack.chmod(0o600)
        content = bytearray(pack.read_bytes())
        content[len(content) // 2] ^= 1
        pack.write_bytes(content)

    def back_up(self):
        self.tree.change()
        files = manifest(self.tree.path)
        self.told[self.plain.summary("backup", self.tree.path)["snapshot_id"]] = files

    def commands(self):
        """What is killed: the repository it begins from, its words, and the snapshots it may take away."""
        oldest = list(self.told)[0]
        slot = next(key["id"] for key in keys_of(self.plain) if key["label"] == "second")
        copied = self.work / "copied"
        return {
            "backup": (self.plain, ["backup", self.tree.path], []),
            "backup with parity": (self.covered, ["backup", self.tree.path], []),
            "forget": (self.plain, ["forget", oldest], [oldest]),
            "hold": (self.plain, ["snapshot", "hold", oldest, "--reason", "a kill"], []),
            "prune": (self.plain, ["prune", "--grace", "0s", "--max-unused", "0"], []),
            "condemn": (self.plain, ["prune", "--max-unused", "0"], []),
            "prune with parity": (self.covered, ["prune", "--grace", "0s", "--max-unused", "0"], []),
            "check that is written down": (self.plain, ["check", "--read-data"], []),
            "parity add": (self.plain, ["parity", "add"], []),
            "parity drop": (self.covered, ["parity", "drop"], []),
            "reserve set": (self.plain, ["reserve", "set", "32MiB"], []),
            "key add": (self.plain, ["key", "add", *CHEAP, "--label", "third", "--new-password-file", self.password], []),
            "key add --append-only": (
                self.plain, ["key", "add", "--append-only", *CHEAP, "--label", "third", "--new-password-file", self.password], []),
            "key remove": (self.plain, ["key", "remove", slot], []),
            "repair index": (self.plain, ["repair", "index"], []),
            "repair packs": (self.damaged, ["repair", "packs", "--read-data", "--from", self.plain.repository], []),
            "copy": (self.plain, ["copy", "--to", copied], []),
            "init": (None, ["init", *CHEAP, "--parity", "10%", "--reserve", "1MiB", "--label", "mine"], []),
        }


def keys_of(tool):
    return json.loads(tool.run("key", "list", "--json").stdout)


class Killer:
    def __init__(self, base, rnd):
        self.base, self.random, self.done = base, rnd, collections.Counter()
        self.durations = {}

    def fresh(self, original):
        """A repository as it was before."""
        place = self.base.work / "repository"
        copied = self.base.work / "copied"
        for old in (place, copied):
            shutil.rmtree(old, ignore_errors=True)
        if original:
            shutil.copytree(original.repository, place)
        Tool(self.base.binary, copied).init()
        return Tool(self.base.binary, place)

    def duration(self, name, original, words):
        if name not in self.durations:
            tool = self.fresh(original)
            begun = time.monotonic()
            tool.run(*words, "-q")
            self.durations[name] = time.monotonic() - begun
        return self.durations[name]

    def kill(self, name):
        original, words, leaving = self.base.commands()[name]
        limit = self.duration(name, original, words)
        tool = self.fresh(original)
        child = tool.start(*words, "-q")
        time.sleep(self.random.uniform(0.0, limit))
        was_running = child.poll() is None
        child.kill()
        child.wait()
        if not was_running:
            self.done["too late"] += 1
            return False
        self.audit(name, tool, original, leaving, words)
        self.done[name] += 1
        return True

    def audit(self, name, tool, original, leaving, words):
        """What the kill left behind, and whether the same command comes to its end now."""
        if original is None:
            again = tool.run(*words, "-q", codes=())
            if again.returncode != 0 and "already" not in again.stderr:
                raise Failed(f"init cannot be made again: {again.stderr}")
            tool.run("check", "-q")
            parity, reserve = (tool.summary(policy, "status") for policy in ("parity", "reserve"))
            made = (parity["tenths_of_percent"], reserve["wanted"], keys_of(tool)[0]["label"])
            if made != (100, 1 << 20, "mine"):
                raise Failed(f"init was asked for more than it has made: {made}")
            return
        if original is not self.base.damaged:
            tool.run("check", "--read-data", "--no-record", "-q")
        live = set(tool.snapshots())
        kept = [snapshot for snapshot in self.base.told if snapshot not in leaving]
        lost = [snapshot for snapshot in kept if snapshot not in live]
        if lost:
            raise Failed(f"lost: {lost}")
        # What was done already is refused or changes nothing: which, is no matter here.
        repeated = tool.run(*words, "-q", codes=())
        done_already = {"forget", "key remove", "key add", "key add --append-only", "hold"}
        if repeated.returncode != 0 and name not in done_already:
            raise Failed(f"again, it ends with {repeated.returncode}: {repeated.stderr}")
        tool.run("check", "--read-data", "--no-record", "-q")
        snapshot = self.random.choice(kept)
        if tool.restored(snapshot, self.base.tree.path) != self.base.told[snapshot]:
            raise Failed(f"snapshot {snapshot} gives back something else")
        if name == "reserve set":
            reserve = tool.summary("reserve", "status")
            if reserve["kept_free"] != reserve["wanted"]:
                raise Failed(f"the reserve is not whole: {reserve}")
        if name == "copy":
            copied = Tool(self.base.binary, self.base.work / "copied")
            copied.run("check", "--read-data", "-q")
            if len(copied.snapshots()) != len(self.base.told):
                raise Failed(f"{len(copied.snapshots())} copies of {len(self.base.told)} snapshots")


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
        names = args.command or list(base.commands())
        if unknown := set(names) - set(base.commands()):
            sys.exit(f"no command is called {unknown}: they are {list(base.commands())}")
        killer = Killer(base, random.Random(args.seed))
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
