#!/usr/bin/env python3
"""docs/recipes/sqlite.md: a database backed up under write load, rehearsed, recovered in place, destroyed, got back; locked, missing and damaged ones."""
import contextlib
import os
import pathlib
import shutil
import sqlite3
import subprocess
import time

from common import WRONG, Load, blocks, case, check, equal, main, need, tables, transfer, within

RECIPE = "sqlite"


def connect(path, journal="wal"):
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=60)
    database.execute(f"pragma journal_mode = {journal}")
    return database


def one(path, statement):
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return database.execute(statement).fetchone()[0]


def has_open(process, path):
    """Whether a process has a file open."""
    try:
        return any(os.path.realpath(link) == str(path) for link in pathlib.Path(f"/proc/{process.pid}/fd").iterdir())
    except OSError:  # it has ended
        return False


def test(machine):
    need("sqlite3", "jq", path=machine.env["PATH"])
    path = machine.path("/var/lib/shop/sessions.db")
    path.parent.mkdir()
    machine.write("etc/shop/shop.ini", "color = blue\n")
    database = connect(path)
    database.executescript(tables("integer primary key"))
    machine.plan(RECIPE)
    get_back = blocks(f"recipes/{RECIPE}.md", "sh")[0]
    restored = machine.path(f"/srv/restored/state/{path}")

    def write(number):
        database.executescript(f"begin immediate; {transfer(number)} commit")

    load = Load(machine, write)
    for number in range(4):
        before = one(path, "select count(*) from transfer")
        machine.strongroom("run").says("state: ok")
        after = one(path, "select count(*) from transfer")
        check(after > before, "nothing was written meanwhile")
        snapshot = machine.snapshots("state")[-1]["id"]
        machine.strongroom("restore", snapshot, "--target", machine.path("/srv/restored/state"))
        equal([file.name for file in restored.parent.iterdir()], ["sessions.db"], "files of the database")
        equal(one(restored, WRONG), 0, f"wrong balances in copy {number}")
        check(before <= one(restored, "select count(*) from transfer") <= after, "transfers")
        shutil.rmtree(machine.path("/srv/restored"))
    load.end()
    case("the invariant holds in each of four copies under write load")

    for repository in ["local", "offsite"]:
        record = machine.drill("state")
        equal((record["outcome"], record["repository"]), ("pass", repository), "the drill")
    case("rehearsed from each repository")

    machine.strongroom("run")
    lost = list(database.execute("select * from transfer"))
    machine.write("bin/systemctl", machine.here('#!/bin/sh\necho "$@" >> /var/systemctl\n'), 0o755)
    rows = lambda: (one(path, "select count(*) from transfer"), one(path, "select sum(balance) from account"), machine.path("/etc/shop/shop.ini").read_text())
    whole = rows()
    database.execute("delete from account")
    database.close()
    machine.write("etc/shop/shop.ini", "color = red\n")
    damaged = rows()
    machine.strongroom("recover", "state")
    equal(rows(), whole, "database and settings")
    machine.strongroom("recover", "--rollback")
    equal(rows(), damaged, "what was there before")
    machine.strongroom("recover", "state")
    machine.strongroom("recover", "--commit")
    equal(rows(), whole, "database and settings")
    equal(machine.path("/var/systemctl").read_text(), "stop shop\nstart shop\n" * 3, "what was stopped and started")
    database = connect(path)
    case("damaged, recovered in place, rolled back, recovered again")

    # What comes later must not get into the restored one: a machine that went down leaves a -wal behind.
    write(1)
    wal = path.with_name("sessions.db-wal")
    left = wal.read_bytes()
    database.close()
    wal.write_bytes(left)
    path.write_bytes(b"not a database")
    machine.script(get_back)
    check(not wal.exists(), "the -wal of the old one is there still")
    mixed = machine.path("/var/tmp/mixed.db")
    shutil.copy(path, mixed)
    mixed.with_name("mixed.db-wal").write_bytes(left)
    check(one(mixed, "select count(*) from transfer") > len(lost), "the -wal would have done no harm: nothing was tested")
    database = connect(path)
    equal(list(database.execute("select * from transfer")), lost, "transfers")
    equal(one(path, WRONG), 0, "wrong balances")
    equal(machine.path(f"/srv/restored/state/{machine.root}/etc/shop/shop.ini").read_text(), "color = blue\n", "the file beside it")
    case("destroyed and got back, with a -wal of the old one lying there")

    # Without WAL a lock keeps readers out.
    database.execute("pragma journal_mode = delete")
    database.execute("begin exclusive")
    run = subprocess.Popen([machine.binary, "run"], env=machine.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    machine.running.append(run)
    within(300, "the database is being read", lambda: run.poll() is not None or has_open(run, path))
    # It may look a bit later; if it then did not wait, it would be over with an error, or with what it must not read.
    time.sleep(1)
    check(run.poll() is None, "it did not wait for the lock")
    database.execute("rollback")
    said = run.communicate()[0]
    machine.running.remove(run)
    equal(run.returncode, 0, said)
    case("a database that is locked is waited for")

    kept = machine.ids("state")
    database.execute("begin exclusive")
    machine.strongroom("run", code=1).says("sessions.db was locked for 60 s")
    database.execute("rollback")
    equal(machine.ids("state"), kept, "snapshots")
    case("one that stays locked fails the run after a minute")

    database.close()
    moved = path.rename(path.with_name("away.db"))
    machine.strongroom("run", code=1).says("sessions.db cannot be read", "No such file")
    check(not path.exists(), "an empty database was made")
    # A page in the middle, as a failing disk leaves it.
    damaged = bytearray(moved.read_bytes())
    damaged[8192:12288] = b"\x07" * 4096
    path.write_bytes(damaged)
    machine.strongroom("run", code=1).says("sessions.db", "damaged")
    equal(machine.ids("state"), kept, "snapshots")
    check('strongroom_attempt_success{domain="state"} 0' in machine.metrics(), machine.metrics())
    moved.replace(path)
    machine.strongroom("run").says("state: ok")
    case("one that is missing or damaged leaves no snapshot")


main(test)
