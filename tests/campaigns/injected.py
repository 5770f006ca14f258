#!/usr/bin/env python3
"""Lets system calls of the real program fail, one at a time: the N-th flush, write, rename, removal or creation of a folder in each
thread says that the disk is broken or full. The command may fail or cope; the repository has to check clean, what was told to be stored has
to be there and give back what it was made of, and a failed flush may never be taken for a good one.

    injected.py --binary target/release/strongroom [--every 1] [--seed 1]

`--every 5` tries each fifth N. Needs strace; says SKIPPED without it. Standard library only.
"""
import argparse
import collections
import pathlib
import shutil
import subprocess
import sys

from common import CHEAP, Failed, Tool, Tree, manifest, workplace

# A system call, how it fails, and whether a command that meets it may end as if nothing had happened.
FAULTS = [
    ("fsync", "EIO", False),
    ("write", "ENOSPC", True),
    ("write", "EIO", True),
    ("renameat2", "EIO", True),
    ("renameat2", "ENOSPC", True),
    ("unlinkat", "EIO", True),
    ("mkdirat", "ENOSPC", True),
    ("pread64", "EIO", True),
    ("flock", "ENOLCK", True),
]
PATIENCE = 200


class Campaign:
    def __init__(self, args, work):
        self.args, self.work, self.done = args, work, collections.Counter()
        self.tree, self.told = Tree(work / "tree", args.seed, files=8, largest=60_000), {}
        self.base = Tool(args.binary, work / "base")
        self.base.init()
        for _ in range(3):
            self.tree.change()
            files = manifest(self.tree.path)
            self.told[self.base.summary("backup", self.tree.path)["snapshot_id"]] = files
        self.oldest = list(self.told)[0]
        self.tree.change()
        self.now = manifest(self.tree.path)
        password = work / "second"
        password.write_text("second")
        self.commands = {
            "backup": ["backup", self.tree.path],
            "forget": ["forget", self.oldest],
            "prune": ["prune", "--grace", "0s", "--max-unused", "0"],
            "parity add": ["parity", "add"],
            "key add": ["key", "add", *CHEAP, "--new-password-file", password],
            "check": ["check", "--read-data"],
        }

    def once(self, name, call, error, copes, number):
        """Runs a command with one fault; says whether there was a call to fail."""
        place = self.work / "repository"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.base.repository, place)
        tool = Tool(self.args.binary, place, patience=PATIENCE)
        if name == "prune":
            tool.run("forget", self.oldest, "-q")
        trace = self.work / "trace"
        wrapper = ["strace", "-f", "-q", "-o", trace, "-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={number}"]
        done = tool.run(*self.commands[name], "-q", codes=(), wrapper=wrapper)
        injected = trace.read_text(errors="replace").count("(INJECTED)")
        if not injected:
            return False
        if done.returncode < 0 or "panicked" in done.stderr:
            raise Failed(f"it dies: {done.returncode} {done.stderr}")
        # A check writes nothing but its own record, and does without it.
        if done.returncode == 0 and not copes and name != "check":
            raise Failed("a failed flush is taken for a good one")
        self.done["failed as it should" if done.returncode else "coped"] += 1
        tool.run("check", "--read-data", "--no-record", "-q")
        live = tool.snapshots()
        leaving = {self.oldest} if name in ("forget", "prune") else set()
        lost = [snapshot for snapshot in self.told if snapshot not in live and snapshot not in leaving]
        if lost:
            raise Failed(f"lost: {lost}")
        if name == "backup" and done.returncode == 0:
            new = [snapshot for snapshot in live if snapshot not in self.told]
            if not new or tool.restored(new[-1], self.tree.path) != self.now:
                raise Failed("a backup that ended with 0 gives back something else")
        tool.run("backup", self.tree.path, "-q")
        return True

    def run(self):
        for name in self.commands:
            for call, error, copes in FAULTS:
                number = 1
                while True:
                    try:
                        if not self.once(name, call, error, copes, number):
                            break
                    except Failed as failure:
                        raise Failed(f"{name}, {call} number {number} fails with {error}: {failure}") from None
                    number += self.args.every


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, type=pathlib.Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.binary = args.binary.resolve()
    if not shutil.which("strace") or subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True).returncode != 0:
        print("SKIPPED faults in system calls: there is no strace, or it may not trace")
        return 0
    with workplace() as work:
        campaign = Campaign(args, work)
        try:
            campaign.run()
        except Failed as error:
            sys.exit(f"seed {args.seed}: {error}")
        if not campaign.done:
            sys.exit("no call was made to fail: strace injects nothing here")
        counts = ", ".join(f"{number} {what}" for what, number in campaign.done.items())
        print(f"faults in system calls: {counts}; nothing lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
