#!/usr/bin/env python3
"""Kills backups with SIGKILL at random moments; the repository has to check clean every time, the next backup has
to go on from what is stored, and the last restore has to equal the source. In the end hardly more may be stored than by a backup that
nobody killed.

    kill_backup.py --binary target/release/strongroom [--kills 50] [--seed 1] [--size MIB] [--source DIR]

Without --source, which should have as much, it makes data of its own, 128 MiB at least. Standard library only.
"""
import argparse
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

from common import Tool, workplace

# How many times as much may be stored: what was stored already is not stored again.
MOST = 1.1
# A chunkful has to be stored before the last backup, or nothing was seen of that. What is less than a pack is stored in the end only.
CHUNKFUL, LEAST = 1 << 20, 128
# How many kills more there may be until so much is.
MORE = 50
HERE = pathlib.Path(__file__).resolve().parent


def make_source(folder, mib, rnd):
    folder.mkdir()
    for number in range(mib // 2):
        place = folder / f"d{number % 17}"
        place.mkdir(exist_ok=True)
        (place / f"noise-{number}").write_bytes(rnd.randbytes(1 << 20))
        (place / f"text-{number}").write_text(" ".join(str(rnd.randrange(1000)) for _ in range(200_000)))


def new_repository(binary, work, number):
    repository = work / f"repository{number}"
    tool = Tool(binary, repository)
    tool.init()
    return repository, tool


def pack_bytes(repository):
    return sum(path.stat().st_size for path in (repository / "packs").rglob("*") if path.is_file())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, type=pathlib.Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, default=256, metavar="MIB")
    parser.add_argument("--source", type=pathlib.Path)
    args = parser.parse_args()
    rnd = random.Random(args.seed)
    with workplace() as work:
        source = args.source or work / "source"
        if not args.source:
            make_source(source, max(args.size, LEAST), rnd)
        # How long one takes, and how much it stores, when nobody interferes.
        calm = work / "calm"
        tool = Tool(args.binary, calm)
        tool.init()
        begun = time.monotonic()
        tool.run("backup", "-q", "--partial-every", "1s", source)
        duration, whole = time.monotonic() - begun, pack_bytes(calm)

        # A backup that came to its end leaves little to interrupt: the next kills are tried on a new repository.
        killed, finished = 0, 0
        repository, tool = new_repository(args.binary, work, finished)
        while killed < args.kills or pack_bytes(repository) < CHUNKFUL and killed < args.kills + MORE:
            backup = tool.start("backup", "-q", "--partial-every", "1s", source)
            time.sleep(rnd.uniform(0.0, duration))
            backup.kill()
            was_killed = backup.wait() == -signal.SIGKILL
            tool.run("check", "--read-data", "-q")
            if was_killed:
                killed += 1
            else:
                finished += 1
                shutil.rmtree(repository)
                repository, tool = new_repository(args.binary, work, finished)
        before = pack_bytes(repository)
        summary = tool.summary("backup", source)
        tool.run("check", "--read-data", "-q")
        target = work / "restored"
        tool.run("restore", f"latest:{source}", "--target", target, "-q")
        compared = subprocess.run([sys.executable, HERE.parent / "demo/compare_trees.py", source, target])
        if compared.returncode != 0:
            sys.exit("the restored tree differs from the source")
        stored = pack_bytes(repository)
        print(
            f"{killed} kills in {finished + 1} repositories: every check clean; the last backup took {summary['files_unmodified']} files over from "
            f"partial snapshots and read {summary['files_new'] + summary['files_changed']}; packs hold "
            f"{stored / 1e6:.1f} MB, of which {before / 1e6:.1f} MB before it, {stored / whole:.2f} times those of an undisturbed backup"
        )
        if before < CHUNKFUL:
            sys.exit("no kill left anything that the last backup could have taken over")
        if stored >= MOST * whole:
            sys.exit(f"more than {MOST} times: what was stored before is stored again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
