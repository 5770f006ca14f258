#!/usr/bin/env python3
"""docs/recipes/postgresql.md with a real server: backed up under write load, rehearsed, destroyed, got back."""
import shutil
import subprocess

import postgresql
from common import WRONG, blocks, case, check, equal, main, sql_load, tables
from postgresql import sql

RECIPE = "postgresql"


def test(machine):
    server = postgresql.start(machine)
    sql(machine, "create role shop", "postgres")
    sql(machine, "create database shop owner shop", "postgres")
    sql(machine, "set role shop;" + tables("bigserial primary key"))
    machine.plan(RECIPE)
    get_back, rename = blocks(f"recipes/{RECIPE}.md", "sh")

    def transfers(database="shop"):
        return int(sql(machine, "select count(*) from transfer", database))

    load = sql_load(machine, ["psql", "service=shop", "-qAt", "-v", "ON_ERROR_STOP=1"])
    before = transfers()
    machine.strongroom("run").says("orders-db: ok")
    after = transfers()
    check(after > before, f"nothing was written meanwhile: {before} rows, and then {after}")
    written = load.end()
    equal(transfers(), written, "what the writer wrote, and what is there")
    snapshot = machine.snapshots("orders-db")[-1]["provenance"]
    equal(snapshot["consistency"], "application", "consistency")
    equal(snapshot["facts"]["server"].split(".")[0], "15", "the server's version")
    case("backed up under write load, to both repositories")

    for repository in ["local", "offsite"]:
        record = machine.drill("orders-db")
        equal((record["outcome"], record["repository"]), ("pass", repository), "the drill")
        check(record["seconds"] < record["rto"], f"measured: {record}")
    equal(sql(machine, "select count(*) from pg_database where datname = 'drill'", "postgres"), "0", "databases the drill left")
    machine.domains(RECIPE, lambda text: text.replace('expect = "20000"', 'expect = "20001"'))
    equal(machine.drill("orders-db", code=4)["outcome"], "fail", "a drill with a wrong answer")
    equal(sql(machine, "select count(*) from pg_database where datname = 'drill'", "postgres"), "0", "databases that a failed drill left")
    machine.domains(RECIPE)
    case("rehearsed from each repository")

    machine.script(get_back)
    equal(sql(machine, WRONG, "restored"), "0", "wrong balances")
    restored = transfers("restored")
    check(before <= restored <= after, f"{before} <= {restored} <= {after}")
    sql(machine, "drop database restored", "postgres")
    case("the invariant holds in what was dumped under load")

    # What is lost from here on is known row by row.
    state = "select md5(string_agg(t::text, ' ' order by id)) from (select id, balance from account union all select -id, source * 1000 + target from transfer) t"
    lost = sql(machine, state)
    machine.strongroom("run")

    machine.write("bin/systemctl", machine.here('#!/bin/sh\necho "$@" >> /var/systemctl\n'), 0o755)
    sql(machine, "delete from transfer where id % 2 = 0; update account set balance = 7")
    damaged = sql(machine, state)
    machine.strongroom("recover", "orders-db", "--plan").says("orders-db")
    equal(sql(machine, state), damaged, "what a look does")
    machine.strongroom("recover", "orders-db", code=3).says("roles.sql")
    equal(sql(machine, state), lost, "the rows")
    machine.strongroom("recover", "--rollback")
    equal(sql(machine, state), damaged, "what was there before")
    machine.strongroom("recover", "orders-db", code=3)
    machine.strongroom("recover", "--commit")
    equal(sql(machine, state), lost, "the rows")
    equal(sql(machine, "select string_agg(datname, ' ' order by datname) from pg_database where not datistemplate", "postgres"), "postgres shop", "databases")
    equal(machine.path("/var/systemctl").read_text(), "stop shop\nstart shop\n" * 3, "what was stopped and started")
    case("damaged, recovered in place, rolled back, recovered again")

    machine.stop(server)
    shutil.rmtree(machine.path(postgresql.DATA))
    shutil.rmtree(machine.path("/srv/restored"))
    server = postgresql.start(machine)
    machine.script(get_back)
    machine.script(rename)
    equal(sql(machine, state), lost, "the rows")
    equal(sql(machine, "select tableowner from pg_tables where tablename = 'account'"), "shop", "the owner of a table")
    case("destroyed and got back, row by row, with owners")

    kept = machine.ids("orders-db")
    # All but the last hundred bytes, with exit code 0.
    cut = '"sh", "-c", "pg_dump -Fc -Z0 service=shop | head -c -100"'
    machine.domains(RECIPE, lambda text: text.replace('"pg_dump", "-Fc", "-Z0", "--lock-wait-timeout=10s", "service=shop"', cut))
    machine.strongroom("run", code=1).says("shop.dump: tee_check: pg_restore failed")
    equal(machine.ids("orders-db"), kept, "snapshots")
    check('strongroom_attempt_success{domain="orders-db"} 0' in machine.metrics(), machine.metrics())
    case("a dump that was cut short is noticed by tee_check")

    # Not the ten seconds that the recipe has.
    machine.domains(RECIPE, lambda text: text.replace("--lock-wait-timeout=10s", "--lock-wait-timeout=500ms"))
    holder = subprocess.Popen(["psql", "service=shop", "-qAt"], env=machine.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    holder.stdin.write("begin; lock table account in access exclusive mode; select 'held';\n")
    holder.stdin.flush()
    equal(holder.stdout.readline(), "held\n", "the lock")
    machine.strongroom("run", code=1).says("shop.dump: pg_dump failed", "account")
    holder.communicate("commit;")
    equal(machine.ids("orders-db"), kept, "snapshots")
    machine.domains(RECIPE)
    machine.strongroom("run").says("orders-db: ok")
    case("a table that is locked fails the run, and the next one goes well")

    machine.stop(server)
    machine.strongroom("run", code=1).says("orders-db: failed: local: ", "connection to server")
    record = machine.drill("orders-db", code=5)
    check(record["message"].startswith("step 1: it cannot be prepared: psql failed"), record["message"])
    case("a server that is gone is told of by runs and drills")


main(test)
