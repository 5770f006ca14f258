"""An independent reader of Strongroom repositories, written from the specification beside it.

    strongroom_reader.py vectors DIR
    strongroom_reader.py log REPO --password-file F
    strongroom_reader.py restore REPO DEST --password-file F [--snapshot ID|latest] [--index segments|packs]

Exit codes: 0 all right, 1 refused, 2 usage, 3 restored with problems.
"""

import argparse
import datetime
import pathlib
import resource
import sys

import repository
import restoring
import vectors
from refusal import Refused


def report(line):
    print(line, file=sys.stderr)


def open_repository(options):
    password = pathlib.Path(options.password_file).read_bytes()
    if password.endswith(b"\n"):
        password = password[:-1].removesuffix(b"\r")
    return repository.Repository(options.repo, password, report)


def check_vectors(options):
    count, failures = vectors.check_all(options.dir)
    for failure in failures:
        report(failure)
    print(f"{count} vectors, {len(failures)} failed")
    return 1 if failures or not count else 0


def show_log(options):
    log = open_repository(options).log
    for seq, writer, commit in log.lines:
        time = datetime.datetime.fromtimestamp(0, datetime.timezone.utc)
        try:
            time = (time + datetime.timedelta(seconds=commit["time"]["seconds"])).isoformat()
        except OverflowError:
            time = f"{commit['time']['seconds']} s"
        changes = ", ".join(name for name, _ in commit["changes"]) or "nothing"
        print(f"{seq} {time} {commit['user']}@{commit['host']} writer {writer.hex()[:8]}: {changes}")
    print(f"{len(log.lines)} commits and {len(log.void)} void entries; head {log.lines[-1][0]}, log hash {log.previous.hex()}")
    return 0


def restore(options):
    opened = open_repository(options)
    index = {"segments": repository.BySegments, "packs": repository.ByPacks}[options.index](opened)
    id, record = opened.snapshot(options.snapshot)
    blobs = repository.Blobs(opened, index)
    if blobs.get(2, id) != opened.log.snapshots[id][1]:
        raise Refused("blob-id", "the snapshot's blob is not the record in the log")
    # Deep directories: a few frames and one descriptor each.
    sys.setrecursionlimit(20_000)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    run = restoring.Restore(blobs, report)
    run.run(record["tree"], options.dest)
    print(f"snapshot {id.hex()}: {run.files} entries, {run.problems} problems")
    return 3 if run.problems else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("vectors", help="check test vectors")
    command.add_argument("dir")
    command.set_defaults(run=check_vectors)
    command = commands.add_parser("log", help="list commits; verify chain, signatures and writers")
    command.add_argument("repo")
    command.add_argument("--password-file", required=True)
    command.set_defaults(run=show_log)
    command = commands.add_parser("restore", help="restore a snapshot into an empty directory")
    command.add_argument("repo")
    command.add_argument("dest")
    command.add_argument("--password-file", required=True)
    command.add_argument("--snapshot", default="latest", help="id, prefix of one, or latest: the last one added")
    command.add_argument("--index", choices=("segments", "packs"), default="segments")
    command.set_defaults(run=restore)
    options = parser.parse_args()
    try:
        return options.run(options)
    except Refused as refused:
        report(f"refused: {refused}")
    except OSError as error:
        report(f"failed: {error}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
