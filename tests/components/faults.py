#!/usr/bin/env python3
"""What goes wrong around a plan: a command that fails after 50 MB, a warning before the copy to the second site, a full disk
under a drill."""
import json
import os
import random
import subprocess

from common import case, check, equal, main

PLAN = """
[[domain]]
name = "dump"
class = "standard"
schedule = "daily"
[[domain.stream]]
name = "rows"
command = ["sh", "-c", "cat /srv/shop/rows; exit $(cat /srv/shop/code)"]

[[domain]]
name = "files"
class = "standard"
schedule = "daily"
paths = ["/srv/shop/files"]
facts = { revision = ["cat", "/srv/shop/REVISION"] }

[[domain]]
name = "later"
class = "standard"
schedule = "daily"
after = ["dump"]
paths = ["/srv/shop/files"]

[[drill]]
name = "all"
domains = ["dump", "files"]
tier = "full"
scratch = "/srv/small"
[[drill.step]]
run = ["cmp", "${scratch}/dump/rows", "/srv/shop/rows"]
"""


def test(machine):
    rows = random.Random(1).randbytes(50_000_000)
    machine.path("/srv/shop/files").mkdir(parents=True)
    machine.path("/srv/shop/rows").write_bytes(rows)
    machine.write("srv/shop/code", "1")
    machine.write("srv/shop/files/page", "a page\n")
    machine.begin_plan()
    machine.write("etc/strongroom/conf.d/faults.toml", machine.here(PLAN))

    # There is no revision either: a warning for `files`, which must not keep it from the second site.
    run = machine.strongroom("run", "--due", code=1)
    run.says("dump: failed: local: rows: sh failed: exit code 1", "later: skipped", "files: partial", "the fact revision was not found out")
    equal((machine.ids("dump"), machine.ids("later")), ([], []), "snapshots of what failed")
    for domain, health in [("dump", 2), ("later", 2), ("files", 1)]:
        for line in [f'strongroom_attempt_success{{domain="{domain}"}} 0\n', f'strongroom_health{{domain="{domain}"}} {health}\n']:
            check(line in machine.metrics(), f"{line}: {machine.metrics()}")
    machine.strongroom("status", code=4).says("dump", "no snapshot")
    machine.strongroom("check", "--read-data")
    case("a stream that ends with 1 after 50 MB leaves no snapshot, and metrics and status tell")

    equal(len(machine.ids("files")), 1, "snapshots, as many in the second repository")
    case("the copy to the second site is made although there was a warning")

    machine.write("srv/shop/code", "0")
    machine.write("srv/shop/REVISION", "3f2a1c\n")
    machine.strongroom("run", "--due").says("dump: ok", "later: ok")
    machine.strongroom("status", code=3).says("files: the last attempt is partial")
    machine.strongroom("run", "files")
    machine.strongroom("status")
    target = machine.path("/srv/restored")
    machine.strongroom("restore", machine.ids("dump")[-1], "--target", target)
    check((target / "rows").read_bytes() == rows, "the rows are others")
    case("the next run makes it up")

    record = machine.drill("all")
    equal(record["outcome"], "pass", "the drill")
    if os.getuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "none", machine.path("/srv/small")]).returncode != 0:
        print("SKIPPED PART: a drill on a full disk needs a mount, which only root can make", flush=True)
        return
    machine.mounts.append(machine.path("/srv/small"))
    record = machine.drill("all", code=5)
    equal(record["outcome"], "unverified", "the drill")
    check("No space left" in record["message"], record["message"])
    equal(list(machine.path("/srv/small").iterdir()), [], "what is left in the scratch directory")
    told = json.loads(machine.strongroom("status", "--json", code=3).stdout.splitlines()[0])
    equal(told["drill"]["outcome"], "unverified", "status")
    case("a drill that has no room says nothing about the data, and leaves nothing behind")


main(test)
