#!/usr/bin/env python3
"""Lets system calls of the real program fail, one at a time: the N-th flush, write, rename, removal, read, listing, opening or creation of a
folder in each thread says that the disk is broken or full, or that too many files are open. The command may fail or cope; the repository has
to check clean, what was told to be stored has to be there and give back what it was made of, what was told to be done has to be done, and a
failed flush may never be taken for a good one: where a command ends well all the same, since it was for something that nobody waits for,
whatever was not flushed is taken away first. A command that failed has to be possible again, and then to have done what it is for. A check may
not pass that could not read something. Each command and each kind of fault has to be met.

    injected.py --binary target/release/strongroom [--every 1] [--seed 1]

`--every 5` tries each fifth N. Needs strace; says SKIPPED without it. Standard library only.
"""
import argparse
import collections
import dataclasses
import json
import pathlib
import random
import re
import shutil
import subprocess
import sys
import typing

from common import CHEAP, PASSWORD, Failed, Tool, Tree, manifest, workplace

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
    ("getdents64", "EIO", True),
    ("openat", "EMFILE", True),
]
# Of a kind of call of which there are very many, one in so many is tried of those that would be.
RARE = {"openat": 7}
# Folders of what a check has to see.
DATA = ("packs", "index", "log", "keys")
PATIENCE = 200
SECOND = "second"
# Exit codes of a check that cannot read something: it is damaged, or nothing was found out.
TOLD = (4, 5)


@dataclasses.dataclass
class Command:
    """What is run, on a copy of which repository, and what has to be true when it says that it is done."""

    words: list
    base: str = "plain"
    is_done: typing.Callable = lambda tool: True
    # The code of the error with which it may end when it is run once more after it failed, since all was done already.
    already: str = ""
    # Whether some of what it writes is for the next time only, as merged segments behind a backup's commit and a check's own record: a flush
    # of that may fail in vain.
    writes_extras: bool = False


def objects(repository, folder="."):
    """Names of all objects, or of those in a folder."""
    return [str(path.relative_to(repository)) for path in sorted((repository / folder).rglob("*")) if path.is_file()]


def flip(path):
    """Turns a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


def reads(trace):
    """What a traced command read: of which file, from which byte to before which, and whether that was made to fail."""
    begun = {}
    for line in trace.splitlines():
        thread, _, call = line.partition(" ")
        path = re.search(r"pread64\(\d+<([^>]*)>", call)
        if path:
            begun[thread] = path[1]
        # It may end in a later line, behind what other threads do.
        end = re.search(r", (\d+), (\d+)\) += (-?\d+)(.*)", call)
        if end and thread in begun:
            failed = "(INJECTED)" in end[4]
            at = int(end[2])
            yield begun.pop(thread), at, at + (int(end[1]) if failed else max(int(end[3]), 0)), failed


def unflushed(trace):
    """Files that a traced command published and that a cut of power may take away: neither they nor their names need be there but by a flush
    that succeeded, of the file before it got its name and of the folder after that. What took another file's place is not among them."""
    bad, waiting, begun = set(), {}, {}
    for line in trace.splitlines():
        thread, call = line.split(maxsplit=1)
        flush = re.match(r"fsync\(\d+<([^>]*)>", call)
        if flush:
            # What gets a name while it is at work, the next one is for.
            begun[thread] = flush[1], set(waiting.get(flush[1], ()))
        if re.search(r"^(fsync\(|<\.\.\. fsync resumed>).*\) += ", call):
            path, names = begun.pop(thread)
            if call.endswith(" = 0"):
                waiting.get(path, set()).difference_update(names)
            else:
                bad.add(path)
        named = re.match(r'renameat2\(\d+<([^>]*)>, "([^"]*)", \d+<([^>]*)>, "([^"]*)", RENAME_NOREPLACE', call)
        if named:
            old, new = f"{named[1]}/{named[2]}", f"{named[3]}/{named[4]}"
            if old in bad:
                bad.add(new)
            waiting.setdefault(named[3], set()).add(new)
    return [path for path in map(pathlib.Path, bad.union(*waiting.values())) if path.is_file()]


def missed(trace, base, repository):
    """Objects that a check did not get to see in whole: a read of them failed, and it read these bytes at no other time.

    What is not among them: files of others, of which it may think what it likes; what it wrote itself, for its record; and parity, which
    is no data: that it cannot be read is told, and no reason to fail."""
    sizes = {name: (base / name).stat().st_size for name in objects(base) if not name.startswith("parity/")}
    done, found = list(reads(trace)), []
    for number, (path, first, end, failed) in enumerate(done):
        name = path.removeprefix(f"{repository}/")
        if not failed or name not in sizes:
            continue
        seen = bytearray(sizes[name])
        # Of packs and segments all bytes are looked at at some time, what was verified is not asked for again. All else is read when the
        # repository is opened, which verifies nothing: only a later read counts.
        for other, start, stop, is_bad in done if name.startswith(("packs/", "index/")) else done[number + 1:]:
            if other == path and not is_bad:
                seen[start:stop] = b"\1" * (min(stop, len(seen)) - min(start, len(seen)))
        if 0 in seen[first:end]:
            found.append(name)
    return found


def calls(trace):
    """The calls of a traced command, each in one piece: one may end in a later line, behind what other threads do."""
    begun = {}
    for line in trace.splitlines():
        thread, call = line.split(maxsplit=1)
        resumed = re.match(r"<\.\.\. \w+ resumed>", call)
        if call.endswith("<unfinished ...>"):
            begun[thread] = call.removesuffix("<unfinished ...>")
        else:
            yield begun.pop(thread, "") + call[resumed.end():] if resumed else call


def unlisted(trace, _base, repository):
    """Folders with data that a check could not list, neither when that was made to fail nor at another time."""
    failed, listed = set(), set()
    for call in calls(trace):
        ended = re.match(r"getdents64\(\d+<([^>]*)>.*\) += (-1|0)\b", call)
        # A folder is listed when there is nothing more of it.
        if ended:
            (listed if ended[2] == "0" else failed).add(ended[1].removeprefix(f"{repository}/"))
    return {folder for folder in failed - listed if folder.split("/")[0] in DATA}


def unopened(trace, base, repository):
    """Objects with data that a check opened at no time."""
    opened = (re.match(r'openat\([^<]*<([^>]*)>, "([^"]*)".*\) += \d', call) for call in calls(trace))
    names = {f"{call[1]}/{call[2]}".removeprefix(f"{repository}/") for call in opened if call}
    return {"config", *(name for folder in DATA for name in objects(base, folder))} - names


# What a check did not get to see where such a call failed.
UNSEEN = {"pread64": missed, "getdents64": unlisted, "openat": unopened}


class Campaign:
    def __init__(self, args, work):
        self.args, self.work, self.random = args, work, random.Random(args.seed)
        # How the commands took it, and how often each met each kind of fault.
        self.done, self.fired = collections.Counter(), collections.Counter()
        self.tree, self.told = Tree(work / "tree", args.seed, files=8, largest=60_000), {}
        self.bases = work / "bases"
        base = self.tool(self.bases / "plain")
        base.init()
        for _ in range(3):
            self.tree.change()
            files = manifest(self.tree.path)
            self.told[base.summary("backup", self.tree.path)["snapshot_id"]] = files
        self.oldest = list(self.told)[0]
        self.tree.change()
        self.now = manifest(self.tree.path)
        self.password = work / "second"
        self.password.write_text(SECOND)
        self.make_bases()
        self.commands = self.all_commands()

    def tool(self, place):
        return Tool(self.args.binary, place, patience=PATIENCE)

    def copy(self, base, place):
        shutil.rmtree(place, ignore_errors=True)
        if base:
            shutil.copytree(self.bases / base, place)
        return self.tool(place)

    def make_bases(self):
        """Repositories to begin with, each of them made of another."""
        def made(name, of):
            return self.copy(of, self.bases / name)

        made("forgotten", "plain").run("forget", self.oldest, "-q")
        made("keyed", "plain").run("key", "add", *CHEAP, "--new-password-file", self.password, "-q")
        covered = made("covered", "plain")
        # So much that one sector that is damaged and another that cannot be read just now are within it.
        covered.run("parity", "add", "--overhead", "20%", "-q")
        # With a record of what was verified.
        covered.run("check", "--read-data", "-q")
        damaged = made("without index", "plain").repository
        (damaged / objects(damaged, "index")[0]).unlink()
        damaged = made("damaged pack", "covered").repository
        flip(max((damaged / name for name in objects(damaged, "packs")), key=lambda path: path.stat().st_size))
        damaged = made("damaged log", "covered").repository
        flip(damaged / objects(damaged, "log")[1])

    def all_commands(self):
        slots = json.loads(self.tool(self.bases / "keyed").run("key", "list", "--json").stdout)
        slot = next(slot["id"] for slot in slots if not slot["current"])
        new = [*CHEAP, "--new-password-file", self.password]
        return {
            "init": Command(["init", *CHEAP], "", lambda tool: tool.opens(PASSWORD), "repository-exists"),
            "backup": Command(["backup", self.tree.path], is_done=self.is_backed_up, writes_extras=True),
            "forget": Command(["forget", self.oldest], is_done=lambda tool: self.oldest not in tool.snapshots(), already="no-snapshot"),
            "prune": Command(["prune", "--grace", "0s", "--max-unused", "0"], "forgotten"),
            "parity add": Command(["parity", "add"], is_done=lambda tool: objects(tool.repository, "parity")),
            "parity drop": Command(["parity", "drop"], "covered", lambda tool: not objects(tool.repository, "parity")),
            "key add": Command(["key", "add", *new], is_done=lambda tool: tool.opens(SECOND)),
            "key passwd": Command(["key", "passwd", *new], is_done=lambda tool: tool.opens(SECOND) and not tool.opens(PASSWORD)),
            "key remove": Command(["key", "remove", slot], "keyed", lambda tool: not tool.opens(SECOND), "unknown-keyslot"),
            "repair index": Command(["repair", "index"], "without index"),
            "repair packs": Command(["repair", "packs", "--read-data"], "damaged pack"),
            "repair objects": Command(["repair", "objects"], "damaged log"),
            "check": Command(["check", "--read-data"], "covered", writes_extras=True),
        }

    def is_backed_up(self, tool):
        new = [snapshot for snapshot in tool.snapshots() if snapshot not in self.told]
        return new and tool.restored(new[-1], self.tree.path) == self.now

    def injected(self, tool, command, call, error, when="", path=None):
        """Runs a command with faults; returns how it ended and the trace, or nothing if there was no call to fail."""
        trace = self.work / "trace"
        wrapper = ["strace", "-f", "-q", "-y", "-s", "0", "-o", trace, *(["-P", path] if path else [])]
        # Of what was flushed one has to know what it was for.
        wrapper += ["-e", f"trace={call}{',renameat2' if call == 'fsync' else ''}", "-e", f"inject={call}:error={error}{when}"]
        done = tool.run(*command.words, "--json", codes=(), wrapper=wrapper)
        text = trace.read_text(errors="replace")
        if "(INJECTED)" not in text:
            return None, text
        if done.returncode < 0 or "panicked" in done.stderr:
            raise Failed(f"it dies: {done.returncode} {done.stderr}")
        self.done["failed as it should" if done.returncode else "coped"] += 1
        return done, text

    def once(self, name, call, error, copes, number):
        """Runs a command with one fault; says whether there was a call to fail."""
        command = self.commands[name]
        tool = self.copy(command.base, self.work / "repository")
        done, trace = self.injected(tool, command, call, error, f":when={number}")
        if not done:
            return False
        self.fired[name, f"{call} {error}"] += 1
        if done.returncode == 0 and not copes:
            if not command.writes_extras:
                raise Failed("a failed flush is taken for a good one")
            for path in unflushed(trace):
                path.unlink(missing_ok=True)
        if done.returncode == 0 and name == "check" and call in UNSEEN:
            if unseen := UNSEEN[call](trace, self.bases / command.base, tool.repository):
                raise Failed(f"the check passes although it could not read {unseen}")
        if done.returncode:
            # It may have failed behind its commit: then the new password is the one that opens.
            password = SECOND if name == "key passwd" and not tool.opens(PASSWORD) else PASSWORD
            tool.with_password(password).again(*command.words, already=command.already)
        if not command.is_done(tool):
            raise Failed("it says that it is done, and is not")
        self.audit(name, tool)
        return True

    def audit(self, name, tool):
        """Makes sure that a repository is whole and can be used."""
        if name == "key passwd":
            tool = tool.with_password(SECOND)
        tool.run("check", "--read-data", "--no-record", "-q")
        live = tool.snapshots()
        leaving = {self.oldest} if name in ("forget", "prune") else set()
        lost = [snapshot for snapshot in self.told if snapshot not in live and snapshot not in leaving]
        if lost and name != "init":
            raise Failed(f"lost: {lost}")
        if here := [snapshot for snapshot in self.told if snapshot in live]:
            snapshot = self.random.choice(here)
            if tool.restored(snapshot, self.tree.path) != self.told[snapshot]:
                raise Failed(f"snapshot {snapshot} gives back something else")
        tool.run("backup", self.tree.path, "-q")

    def unreadable(self, name, folder):
        """A check that cannot read an object at all: what it says, and that it names it."""
        command, place = self.commands["check"], self.work / "repository"
        done, _ = self.injected(self.copy(command.base, place), command, "pread64", "EIO", path=place / name)
        # The reserve is room that is kept free, nothing reads it.
        if not done and name == "reserve":
            return
        if not done:
            raise Failed("a check that reads all data does not read it")
        # Parity is no data: what is wrong with it is told, and no reason to fail.
        if done.returncode not in ((0,) if folder == "parity" else TOLD):
            raise Failed(f"the check ends with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        if name not in done.stdout:
            raise Failed(f"the check does not name it: {done.stdout[-2000:]}")

    def run(self):
        for name in self.commands:
            for call, error, copes in FAULTS:
                number = RARE.get(call, 1)
                while True:
                    try:
                        if not self.once(name, call, error, copes, number):
                            break
                    except Failed as failure:
                        raise Failed(f"{name}, {call} number {number} fails with {error}: {failure}") from None
                    number += self.args.every * RARE.get(call, 1)
        for name in objects(self.bases / "covered")[::self.args.every]:
            try:
                self.unreadable(name, name.split("/")[0])
            except Failed as failure:
                raise Failed(f"check, no read of {name} succeeds: {failure}") from None
        self.require_fired()

    def require_fired(self):
        """A kind of fault that no command met, or a command that met none, was not tried at all."""
        kinds = [f"{call} {error}" for call, error, _ in FAULTS]
        idle = [name for name in self.commands if not any(self.fired[name, kind] for kind in kinds)]
        idle += [kind for kind in kinds if not any(self.fired[name, kind] for name in self.commands)]
        if idle:
            raise Failed(f"nothing was made to fail of {idle}")


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
        counts = ", ".join(f"{number} {what}" for what, number in campaign.done.items())
        print(f"faults in system calls: {counts}; nothing lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
