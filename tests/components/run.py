#!/usr/bin/env python3
"""Runs the tests with real components: servers that they start themselves on sockets of their own, the plans out of the recipes
in docs/recipes. Each runs in a folder of its own; two at a time.

    run.py --binary target/release/strongroom [--jobs 2] [--limit 900] [NAME ...]

Ends with 0 if all passed or were skipped, each with its reason. Standard library only; install.sh installs the components.
"""
import argparse
import concurrent.futures
import pathlib
import re
import subprocess
import sys
import tempfile
import time

from common import DOCS, SKIPPED, VENV

HERE = pathlib.Path(__file__).resolve().parent
# The one that takes longest first.
TESTS = ["sqlite", "rabbitmq", "whole_story", "postgresql", "mariadb", "redis", "snapshots", "faults", "schema", "metrics"]
# What install.sh has installed for Python is known to that of its folder.
PYTHON = next(path for path in [VENV / "bin/python", pathlib.Path(sys.executable)] if path.exists())
# Within this time a script that was told to end ends its servers, in seconds.
GRACE = 300


def script(name):
    return next(path for path in [HERE / f"recipe_{name}.py", HERE / f"{name}.py"] if path.exists())


def check_recipes():
    """Each recipe names the test that runs it, and that is run here; each part that no test runs says so."""
    run = {script(name).name for name in TESTS}
    for path in sorted((DOCS / "recipes").glob("*.md")):
        named = set(re.findall(r"tests/components/(\w+\.py)", path.read_text()))
        if not named or not named <= run:
            sys.exit(f"{path} has to name the test of tests/components that runs it, and names {sorted(named)}")
    unknown = {path.name for path in HERE.glob("recipe_*.py")} - run
    if unknown:
        sys.exit(f"run.py does not run {sorted(unknown)}")


def run(name, binary, limit):
    began = time.monotonic()
    # Files: a server that was left behind would hold a pipe open.
    with tempfile.TemporaryFile("w+", errors="replace") as said, tempfile.TemporaryFile("w+", errors="replace") as wrong:
        script_of = subprocess.Popen([PYTHON, script(name), "--binary", binary], stdin=subprocess.DEVNULL, stdout=said, stderr=wrong)
        why = ""
        try:
            code = script_of.wait(limit)
        except subprocess.TimeoutExpired:
            code, why = 1, f"it was told to end after {limit} s (--limit)\n"
            script_of.terminate()
            try:
                script_of.wait(GRACE)
            except subprocess.TimeoutExpired:
                script_of.kill()
                script_of.wait()
                why += f"and was killed {GRACE} s later: its servers may still run\n"
        said.seek(0)
        wrong.seek(0)
        return name, code, said.read(), wrong.read() + why, time.monotonic() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, type=pathlib.Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=float, default=900, metavar="SECONDS", help="a server that hangs must not hold up all others: a test is ended after this time [default: 900]")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TESTS)} [default: all]")
    args = parser.parse_args()
    wanted = args.names or TESTS
    if unknown := set(wanted) - set(TESTS):
        parser.error(f"there is no test {', '.join(sorted(unknown))}")
    check_recipes()
    passed, skipped, failed = 0, [], []
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for name, code, said, wrong, took in pool.map(lambda name: run(name, args.binary.resolve(), args.limit), [name for name in TESTS if name in wanted]):
            print(f"--- {name}, {took:.0f} s")
            lines = said.splitlines()
            passed += sum(line.startswith("ok: ") for line in lines)
            skipped += [f"{name}: {line.partition(': ')[2]}" for line in lines if line.startswith("SKIPPED")]
            print(said, end="")
            if code not in (0, SKIPPED):
                failed.append(name)
                print(wrong, end="")
            sys.stdout.flush()
    why = f" ({'; '.join(skipped)})" if skipped else ""
    print(f"{passed} passed, {len(skipped)} skipped{why}, {len(failed)} failed{': ' if failed else ''}{', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
