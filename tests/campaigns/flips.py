#!/usr/bin/env python3
"""Turns single bits of a large repository. A check that reads everything has to find every one, and to name the object it is in; where it
finds nothing wrong, everything still has to be there and come back right.

    flips.py --binary target/release/strongroom [--flips 10000] [--seed 1] [--size MIB]

Bits of packs are turned in many packs at once, for each of which the check has to speak up; one in ten is a bit of something else, alone.
Only of the reserve it may say nothing. Standard library only.
"""
import argparse
import json
import pathlib
import random
import sys

from common import Failed, Tool, Tree, manifest, workplace

ALONE_EVERY = 10
# What a check ends with where something is damaged.
DAMAGE = 4
# Room that is kept free: no bytes of it are ever read, and any will do.
RESERVE = "reserve"
# Of the config, which has no checksum of its own, it depends on what a bit turns it into: no repository of ours, one of a newer version, one
# that no password opens since keyslots are bound to its id, or something damaged. By the codes that a check ends with.
CONFIG = {"not-a-repository": 10, "newer-version": 5, "wrong-password": 12, "config-damaged": DAMAGE}


def turn(path, rnd):
    """Turns a bit of a file; returns how to turn it back."""
    path.chmod(0o600)
    at, bit = rnd.randrange(path.stat().st_size), 1 << rnd.randrange(8)

    def act():
        with open(path, "r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ bit]))

    act()
    return act, f"bit {bit:#04x} of byte {at} of {path.name}"


class Campaign:
    def __init__(self, args, work):
        self.random, self.tool = random.Random(args.seed), Tool(args.binary, work / "repository")
        self.tool.init()
        self.tree = Tree(work / "tree", args.seed, files=args.size, largest=2 << 20)
        self.told = {}
        for _ in range(3):
            files = manifest(self.tree.path)
            self.told[self.tool.summary("backup", self.tree.path)["snapshot_id"]] = files
            self.tree.change()
        files = [path for path in sorted(self.tool.repository.rglob("*")) if path.is_file()]
        self.packs = [path for path in files if path.parts[-3] == "packs"]
        self.others = [path for path in files if path not in self.packs]
        self.found = self.harmless = 0

    def check(self):
        """The exit code of a check, and what it finds wrong."""
        done = self.tool.run("check", "--read-data", "--no-record", "--json", codes=())
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        return done.returncode, [line for line in lines if line["type"] == "error"]

    def in_packs(self, number):
        chosen = self.random.sample(self.packs, k=min(number, len(self.packs)))
        turned = [turn(path, self.random) for path in chosen]
        code, errors = self.check()
        named = {error.get("object") for error in errors}
        for path, (_, what) in zip(chosen, turned):
            if code != DAMAGE or self.key(path) not in named:
                raise Failed(f"silent, exit code {code}: {what}")
        for back, _ in turned:
            back()
        self.found += len(turned)
        return len(turned)

    def key(self, path):
        return str(path.relative_to(self.tool.repository))

    def alone(self):
        path = self.random.choice(self.others)
        back, what = turn(path, self.random)
        code, errors = self.check()
        if self.key(path) == RESERVE:
            self.require_whole(code, what)
        elif not self.is_named(path, code, errors):
            raise Failed(f"exit code {code}, and it is not named: {what}: {errors}")
        else:
            self.found += 1
        back()
        return 1

    def is_named(self, path, code, errors):
        """Whether a check says which object is damaged, and ends as it has to."""
        if path.name == "config":
            return any(CONFIG.get(error["code"]) == code for error in errors)
        # Without a keyslot nothing is looked at: the message names it.
        return code == DAMAGE and any(error.get("object") == self.key(path) or self.key(path) in error["message"] for error in errors)

    def require_whole(self, code, what):
        """What does no harm is no reason for a check to fail, and all comes back right."""
        if code != 0:
            raise Failed(f"exit code {code}, and nothing is wrong: {what}")
        if set(self.tool.snapshots()) != set(self.told):
            raise Failed(f"silent: {what}")
        for snapshot, files in self.told.items():
            if self.tool.restored(snapshot, self.tree.path) != files:
                raise Failed(f"silent, and wrong: {what}")
        self.harmless += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, type=pathlib.Path)
    parser.add_argument("--flips", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, default=256, metavar="MIB", help="about what the repository has")
    args = parser.parse_args()
    args.binary = args.binary.resolve()
    with workplace() as work:
        campaign = Campaign(args, work)
        flips = alone = 0
        try:
            while flips < args.flips:
                if alone * ALONE_EVERY <= flips:
                    alone += 1
                    flips += campaign.alone()
                else:
                    flips += campaign.in_packs(args.flips - flips)
            if campaign.check() != (0, []):
                raise Failed("with all bits turned back, the repository is not what it was")
        except Failed as error:
            sys.exit(f"seed {args.seed}, after {flips} flips: {error}")
        print(
            f"{flips} flips in {len(campaign.packs)} packs and {len(campaign.others)} other objects: {campaign.found} found by name, "
            f"{campaign.harmless} harmless ones in the reserve, 0 silent"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
