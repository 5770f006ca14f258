#!/usr/bin/env python3
"""Cuts the power of real file systems: a repository on a loop-mounted ext4 or xfs, backups and prunes at work on it at the same
time, and at a random moment everything that the file system has not made durable is lost at once (FS_IOC_SHUTDOWN). Mounted again, the
repository has to check clean, and every snapshot that a command had told of has to be there and give back what it was made of.

    power_cut.py --binary target/release/strongroom [--cuts 300] [--kinds ext4,xfs] [--seed 1]

Needs root, loop devices, mkfs.ext4 and mkfs.xfs, and a kernel that knows these; says SKIPPED of a kind for which one of them is missing. Where
all are there, fewer cuts than were asked for are a failure. Standard library only.
"""
import argparse
import collections
import fcntl
import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import threading
import time

from common import Failed, Tool, Tree, manifest, workplace

SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2
# What is remembered of each snapshot that was told of: how many are restored after a cut.
RESTORED = 3


class Disk:
    """A file system in a file."""

    def __init__(self, work, kind):
        self.image, self.mount_point = work / f"{kind}.img", work / "mnt"
        self.mount_point.mkdir()
        with open(self.image, "wb") as file:
            file.truncate(400 << 20)
        subprocess.run([f"mkfs.{kind}", "-q", self.image], check=True, stdout=subprocess.DEVNULL)

    def mount(self):
        subprocess.run(["mount", "-o", "loop", self.image, self.mount_point], check=True)

    def cut(self):
        handle = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(handle)

    def unmount(self):
        for _ in range(100):
            if subprocess.run(["umount", self.mount_point], stderr=subprocess.DEVNULL).returncode == 0:
                return
            time.sleep(0.05)
        raise Failed(f"{self.mount_point} stays busy")


class Turn(threading.Thread):
    """Commands one after the other until one fails, as all do when the power is gone."""

    def __init__(self, act):
        super().__init__(daemon=True)
        self.act, self.error = act, None

    def run(self):
        try:
            while self.act():
                pass
        except Exception as error:  # pylint: disable=broad-except
            self.error = error


class Campaign:
    def __init__(self, args, work, kind):
        self.disk, self.random, self.done = Disk(work, kind), random.Random(f"{args.seed}{kind}"), collections.Counter()
        self.tree = Tree(work / "tree", self.random.random(), files=12, largest=300_000)
        self.tool = Tool(args.binary, self.disk.mount_point / "repository", patience=120)
        # What each snapshot that was told of holds, those that may or may not have been forgotten, and those that were.
        self.told, self.leaving, self.gone = {}, set(), set()
        self.is_made, self.longest = False, 0.0

    def back_up(self):
        self.tree.change()
        files = manifest(self.tree.path)
        done = self.tool.run("backup", "--json", self.tree.path, codes=())
        if done.returncode == 0:
            self.told[json.loads(done.stdout.splitlines()[-1])["snapshot_id"]] = files
            self.done["backups"] += 1
        return done.returncode == 0

    def thin_out(self):
        oldest = list(self.told)[:-3]
        self.leaving.update(oldest)
        if oldest:
            if self.tool.run("forget", *oldest, "--allow-mass", "-q", codes=()).returncode != 0:
                return False
            for snapshot in oldest:
                del self.told[snapshot]
            self.gone.update(oldest)
        done = self.tool.run("prune", "--grace", "0s", "--max-unused", "0", "-q", codes=())
        self.done["prunes"] += done.returncode == 0
        return done.returncode == 0

    def audit(self):
        """What is there after a cut."""
        self.tool.run("check", "--read-data", "--no-record", "-q")
        live = set(self.tool.snapshots())
        lost = [snapshot for snapshot in self.told if snapshot not in live and snapshot not in self.leaving]
        if lost:
            raise Failed(f"snapshots are lost that were told of: {lost}")
        if back := self.gone & live:
            raise Failed(f"snapshots are back that were forgotten: {back}")
        here = [snapshot for snapshot in self.told if snapshot in live]
        for snapshot in self.random.sample(here, k=min(RESTORED, len(here))):
            if self.tool.restored(snapshot, self.tree.path) != self.told[snapshot]:
                raise Failed(f"snapshot {snapshot} gives back something else")
            self.done["restores"] += 1
        # One that was told of and may have been forgotten by what was cut off.
        self.told = {snapshot: files for snapshot, files in self.told.items() if snapshot in live}
        self.leaving.clear()

    def round(self):
        self.disk.mount()
        try:
            if not self.is_made:
                self.tool.init()
                self.is_made = True
                begun = time.monotonic()
                self.back_up()
                # Some commands long, however slow the machine is.
                self.longest = 4 * (time.monotonic() - begun) + 0.5
            self.audit()
            turns = [Turn(self.back_up), Turn(self.thin_out)]
            for turn in turns:
                turn.start()
            time.sleep(self.random.uniform(0.0, self.longest))
            early = [turn.act.__name__ for turn in turns if not turn.is_alive()]
            self.disk.cut()
            for turn in turns:
                turn.join()
            if early or any(turn.error for turn in turns):
                raise Failed(f"before the power was cut: {early or ''} {[turn.error for turn in turns]}")
        finally:
            self.disk.unmount()
        self.done["cuts"] += 1


def lacking(kind):
    """What it takes to cut the power of a file system of this kind and is not here, if anything is."""
    if os.geteuid() != 0:
        return "that takes root"
    if not shutil.which(f"mkfs.{kind}"):
        return f"there is no mkfs.{kind}"
    # The only one that tells whether a device can be had, now or on demand.
    if subprocess.run(["losetup", "--find"], capture_output=True).returncode != 0:
        return "there are no loop devices"
    # A module may be there that nobody has asked for yet.
    if shutil.which("modprobe"):
        subprocess.run(["modprobe", "-q", kind], capture_output=True)
    if kind not in pathlib.Path("/proc/filesystems").read_text().split():
        return f"this kernel has no {kind}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, type=pathlib.Path)
    parser.add_argument("--cuts", type=int, default=300, help="of all kinds together")
    parser.add_argument("--kinds", default="ext4,xfs")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.binary = args.binary.resolve()
    lacks = {kind: lacking(kind) for kind in args.kinds.split(",")}
    for kind, what in lacks.items():
        if what:
            print(f"SKIPPED power cuts on {kind}: {what}")
    # Those that can be cut make the cuts of the others, too.
    kinds = [kind for kind, what in lacks.items() if not what]
    cuts = 0
    for kind in kinds:
        with workplace() as work:
            campaign = Campaign(args, work, kind)
            try:
                for _ in range(-(-args.cuts // len(kinds))):
                    campaign.round()
                campaign.disk.mount()
                campaign.audit()
                campaign.disk.unmount()
            except Failed as error:
                sys.exit(f"{kind}, seed {args.seed}, after {campaign.done['cuts']} cuts: {error}")
            except (OSError, subprocess.CalledProcessError) as error:
                sys.exit(f"{kind}: all that it takes is here, and yet: {error}")
            if idle := [what for what in ("backups", "prunes", "restores") if not campaign.done[what]]:
                sys.exit(f"{kind}: in {campaign.done['cuts']} rounds there were no {idle}: this machine is too slow for it")
            counts = ", ".join(f"{number} {what}" for what, number in campaign.done.items())
            print(f"{kind}: {counts}: nothing lost")
            cuts += campaign.done["cuts"]
    if kinds and cuts < args.cuts:
        sys.exit(f"{cuts} cuts were made, and {args.cuts} asked for")
    return 0


if __name__ == "__main__":
    sys.exit(main())
