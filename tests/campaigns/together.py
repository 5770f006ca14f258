#!/usr/bin/env python3
"""Many real processes on one repository at once: writers that back up trees of their own and forget old snapshots, a prune
after the other, and checks in between. Nobody may fail or be held up; in the end every snapshot that was not forgotten has to
restore to the tree it was made of, and none may be there that was. On a slow machine a run goes on until each writer has forgotten something,
packs were removed and a check was made, up to ten times as long.

    together.py --binary target/release/strongroom [--seconds 1800] [--writers 8] [--grace 0s] [--seed 1] [--size MIB]

Blocked is a command that takes more than twenty times what its kind takes here and more than a minute (in a short run a third of the run, or
20 s: nobody waits longer than others are at work), and any that takes longer than --patience seconds. Standard library only.
"""
import argparse
import collections
import pathlib
import random
import statistics
import sys
import threading
import time

from common import Failed, Tool, manifest, workplace

# Exit code of a check that was overtaken by prunes time and again.
UNVERIFIED = 5
# A command that waits for another one is told from one on a slow machine by what its kind takes there: ten processes on two cores share
# them evenly, whereas one that waits does so alone. Any may take some seconds: the first in a short run, the second in a long one.
TIMES, SHORT_RUN, SECONDS = 20, 20, 60
# How much longer than asked for a run goes on on a slow machine, until everybody has done what the run is for.
LONGER = 10


class Timed(Tool):
    """The program as one machine runs it, which remembers what it has seen; notes how long each command takes."""

    def __init__(self, args, work, name, times):
        super().__init__(args.binary, work / "repository", state=work / "state" / name, patience=args.patience)
        self.name, self.times = name, times

    def run(self, *words, **options):
        begun = time.monotonic()
        try:
            return super().run(*words, **options)
        finally:
            # One that reads all data takes longer than one that does not.
            kind = " ".join(str(word) for word in words if word == words[0] or str(word).startswith("--read-data"))
            self.times.append((kind, time.monotonic() - begun, self.name))


def at_least(run):
    """How long any command may take in a run of so many seconds."""
    return min(SECONDS, max(SHORT_RUN, run / 3))


def limit(times, number, least):
    """How long a command may take, by what all others of its kind took. Where there are hardly any, by what everybody did."""
    others = [seconds for at, (kind, seconds, _) in enumerate(times) if at != number and kind == times[number][0]]
    if len(others) < 3:
        others = [seconds for at, (_, seconds, _) in enumerate(times) if at != number]
    return max(least, TIMES * statistics.median(others or [0]))


def blocked(times, least):
    """Commands that took too long: what they were, how long they took, whose they were, and how long they might."""
    limits = ((each, limit(times, number, least)) for number, each in enumerate(times) if each[1] > least)
    return [(*each, most) for each, most in limits if each[1] > most]


def durations(times):
    """The longest and the median command of each kind, as text."""
    kinds = collections.defaultdict(list)
    for kind, seconds, _ in times:
        kinds[kind].append(seconds)
    return [
        f"{len(taken)} {kind}: median {statistics.median(taken):.1f} s, longest {max(taken):.1f} s" for kind, taken in sorted(kinds.items())
    ]


def check_self():
    """What is blocked has to be told, and what is merely slow must not be."""
    def of(kind, *seconds):
        return [(kind, each, "") for each in seconds]

    cases = [
        ("quick ones", of("backup", 1, 2, 59), 0),
        ("one that waits", of("backup", 1, 2, 1, 61), 1),
        ("one that is slow among slow ones", of("backup", 30, 40, 30, 590), 0),
        ("one that waits among slow ones", of("backup", 4, 5, 4, 101), 1),
        ("two that wait", of("prune", 1, 1, 1, 1, 1, 200, 300), 2),
        ("the only one of its kind, which waits", of("backup", 1, 2, 1, 2) + of("prune", 100), 1),
        ("two of a kind that both wait", of("backup", 1, 2, 1, 2) + of("prune", 100, 110), 2),
        ("one alone", of("prune", 61), 1),
    ]
    for what, times, count in cases:
        if len(found := blocked(times, at_least(1800))) != count:
            sys.exit(f"this script is wrong about {what}: {found}")
    if [at_least(seconds) for seconds in (10, 60, 90, 1800)] != [20, 20, 30, 60] or len(blocked(of("backup", 1, 0.5, 1, 21), at_least(60))) != 1:
        sys.exit("this script is wrong about short runs")


class Writer:
    """A host with a tree that changes between its backups."""

    def __init__(self, args, work, number, times):
        self.name, self.random = f"host{number}", random.Random(args.seed * 1000 + number)
        self.tool, self.tree = Timed(args, work, self.name, times), work / "trees" / self.name
        # What may be there: what the last forget kept, and what was made since.
        self.made, self.kept, self.left = {}, collections.deque(maxlen=args.keep), set()
        for file in range(args.size * 4):
            self.write(f"d{file % 7}/f{file}", shared=file % 3 == 0)

    def write(self, name, shared=False):
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # What several hosts have is stored once: their backups rely on each other's packs.
        source = random.Random(f"{name}{self.random.randrange(3)}") if shared else self.random
        path.write_bytes(source.randbytes(source.randrange(1, 500_000)))

    def change(self):
        files = [path for path in self.tree.rglob("*") if path.is_file()]
        for path in self.random.sample(files, k=max(1, len(files) // 10)):
            choice = self.random.random()
            if choice < 0.3:
                path.unlink()
            elif choice < 0.5:
                path.rename(path.with_name(path.name + "r"))
            else:
                self.write(path.relative_to(self.tree), shared=choice < 0.7)
        for number in range(self.random.randrange(1, max(2, len(files) // 10))):
            self.write(f"d{number % 7}/n{self.random.randrange(1 << 30)}", shared=self.random.random() < 0.3)

    def turn(self):
        self.change()
        files = manifest(self.tree)
        snapshot = self.tool.summary("backup", "--host", self.name, self.tree)["snapshot_id"]
        self.made[snapshot] = files
        self.kept.append(snapshot)
        self.left.add(snapshot)
        if len(self.made) % 3 == 0:
            self.tool.run("forget", "--host", self.name, "--keep-last", self.kept.maxlen, "--allow-mass", "-q")
            self.left = set(self.kept)

    def has_worked(self):
        return len(self.left) < len(self.made)


class Pruner:
    def __init__(self, args, work, times):
        self.name, self.tool, self.grace = "pruner", Timed(args, work, "pruner", times), args.grace
        self.removed = 0

    def turn(self):
        self.removed += self.tool.summary("prune", "--grace", self.grace, "--max-unused", "0")["packs_removed"]

    def has_worked(self):
        return self.removed > 0


class Checker:
    def __init__(self, args, work, times):
        self.name, self.tool, self.overtaken, self.made = "checker", Timed(args, work, "checker", times), 0, 0

    def turn(self):
        words = ["check", "-q"] + (["--read-data-subset", "20%"] if self.made % 3 == 2 else [])
        self.overtaken += self.tool.run(*words, codes=(0, UNVERIFIED)).returncode == UNVERIFIED
        self.made += 1

    def has_worked(self):
        return self.overtaken < self.made


def work_on(actor, actors, begun, seconds, turns, failures):
    """Takes turns until the time is over and everybody has done what they are for, or somebody has failed."""
    def goes_on():
        passed = time.monotonic() - begun
        return passed < seconds or passed < LONGER * seconds and not all(each.has_worked() for each in actors)

    while goes_on() and not failures:
        try:
            actor.turn()
            turns[actor.name] += 1
        except Exception as error:  # pylint: disable=broad-except
            failures.append(f"{actor.name}: {error}")


def audit(auditor, writers):
    """Restores and compares everything that is there, and makes sure that all that has to be is, and nothing that was forgotten."""
    auditor.run("check", "--read-data", "-q")
    made = {snapshot: (writer, files) for writer in writers for snapshot, files in writer.made.items()}
    live = auditor.snapshots()
    lost = [snapshot for writer in writers for snapshot in writer.kept if snapshot not in live]
    if lost:
        raise Failed(f"lost: {lost}")
    left = {snapshot for writer in writers for snapshot in writer.left}
    if back := [snapshot for snapshot in live if snapshot not in left]:
        raise Failed(f"there, although forgotten or never made: {back}")
    for snapshot in live:
        writer, files = made[snapshot]
        if auditor.restored(snapshot, writer.tree) != files:
            raise Failed(f"snapshot {snapshot} of {writer.name} restores to something else")
    for _ in range(2):
        auditor.run("prune", "--grace", "0s", "-q")
    auditor.run("check", "--read-data", "-q")
    return len(live)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, type=pathlib.Path)
    parser.add_argument("--seconds", type=int, default=1800)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--keep", type=int, default=4, help="snapshots that forget keeps of each writer")
    parser.add_argument("--grace", default="0s")
    parser.add_argument("--patience", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, default=8, metavar="MIB", help="about what each tree has")
    args = parser.parse_args()
    check_self()
    with workplace() as work:
        # Commands that run beside others, and those that run alone: these have nobody to wait for.
        times, alone = [], []
        Timed(args, work, "maker", alone).init()
        writers = [Writer(args, work, number, times) for number in range(args.writers)]
        pruner, checker = Pruner(args, work, times), Checker(args, work, times)
        actors, turns, failures = [*writers, pruner, checker], collections.Counter(), []
        begun = time.monotonic()
        threads = [threading.Thread(target=work_on, args=(actor, actors, begun, args.seconds, turns, failures)) for actor in actors]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        passed = time.monotonic() - begun
        if failures:
            sys.exit("\n".join(failures))
        if idle := [actor.name for actor in actors if not actor.has_worked()]:
            sys.exit(f"in {passed:.0f} s these did not do what they are for, be it to forget, to remove packs or to check: {idle}")
        try:
            live = audit(Timed(args, work, "auditor", alone), writers)
        except Failed as error:
            sys.exit(f"in the end: {error}")
        print("\n".join(durations(times)))
        print("alone: " + "; ".join(durations(alone)))
        if held_up := blocked(times, at_least(passed)):
            lines = (f"blocked: {kind} of {name} took {seconds:.0f} s, more than {most:.0f} s" for kind, seconds, name, most in held_up)
            sys.exit("\n".join(lines))
        backups = sum(turns[writer.name] for writer in writers)
        print(
            f"{passed:.0f} s: {backups} backups by {args.writers} writers, {turns['pruner']} prunes that removed {pruner.removed} packs, "
            f"{turns['checker']} checks, {checker.overtaken} of them overtaken; {live} snapshots restored and compared: 0 lost, 0 blocked"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
