#!/usr/bin/env python3
"""docs/recipes/mariadb.md with a real server: backed up under write load, rehearsed, destroyed, got back."""
import shutil

from common import WRONG, blocks, case, check, equal, main, need, sql_load, tables

RECIPE = "mariadb"
DATA = "var/lib/mysql"
PROGRAMS = """
create trigger never before delete on account for each row signal sqlstate '45000';
create event daily on schedule every 1 day disable do delete from transfer where id < 0;
create procedure pay(taker int) update account set balance = balance + 1 where id = taker;
create function money() returns int reads sql data return (select sum(balance) from account);
"""


def start(machine):
    need("mariadbd", "mariadb-install-db", "mariadb-dump", "mariadb", path=machine.env["PATH"])
    machine.write("etc/shop/my.cnf", machine.here(blocks(f"recipes/{RECIPE}.md", "ini")[0]), 0o600)
    data, socket = machine.folder(DATA, "mysql"), machine.folder("var/run/mysqld", "mysql") / "mysqld.sock"
    machine.prepare(["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal", "--skip-test-db"], "mysql")
    small = ["--innodb-buffer-pool-size=32M", "--innodb-flush-log-at-trx-commit=0", "--innodb-log-file-size=8M"]
    argv = ["mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={socket}", "--skip-networking", *small]
    server = machine.start(argv, "mysql", [*root(machine), "-e", "select 1"])
    # No right that the recipe does not name.
    sql(machine, blocks(f"recipes/{RECIPE}.md", "sql")[0])
    return server


def root(machine):
    return ["mariadb", "--no-defaults", f"--socket={machine.path('/var/run/mysqld/mysqld.sock')}", "-u", "root"]


def sql(machine, statements, *database):
    """What statements print that the owner of the data gives, who is not who backs it up."""
    return machine.ask(*root(machine), "-BNe", statements, *database)


def programs(machine, database):
    """Everything in a database that is no table."""
    kinds = {"triggers": ("trigger_name", "trigger_schema"), "events": ("event_name", "event_schema"), "routines": ("routine_name", "routine_schema")}
    names = (f"select {name} from information_schema.{kind} where {schema} = '{database}'" for kind, (name, schema) in kinds.items())
    return sorted(sql(machine, " union all ".join(names)).split())


def test(machine):
    server = start(machine)
    sql(machine, "create database shop")
    sql(machine, tables("bigint auto_increment primary key") + PROGRAMS, "shop")
    machine.plan(RECIPE)
    get_back = blocks(f"recipes/{RECIPE}.md", "sh")[0]

    def transfers(database):
        return int(sql(machine, "select count(*) from transfer", database))

    load = sql_load(machine, [*root(machine), "shop"])
    before = transfers("shop")
    machine.strongroom("run").says("orders-db: ok")
    after = transfers("shop")
    check(after > before, f"nothing was written meanwhile: {before} rows, and then {after}")
    written = load.end()
    equal(transfers("shop"), written, "what the writer wrote, and what is there")
    facts = machine.snapshots("orders-db")[-1]["provenance"]["facts"]
    equal(facts["not-innodb"], "0", "other tables")
    case("backed up under write load, to both repositories")

    for repository in ["local", "offsite"]:
        record = machine.drill("orders-db")
        equal((record["outcome"], record["repository"]), ("pass", repository), "the drill")
    case("rehearsed from each repository")

    machine.script(get_back)
    equal(sql(machine, WRONG, "restored"), "0", "wrong balances")
    restored = transfers("restored")
    check(before <= restored <= after, f"{before} <= {restored} <= {after}")
    case("the invariant holds in what was dumped under load")

    state = "select 'account', id, balance from account union all select 'transfer', id, source * 1000 + target from transfer order by 1, 2"
    lost = sql(machine, state, "shop")
    machine.strongroom("run")
    machine.stop(server)
    shutil.rmtree(machine.path(DATA))
    shutil.rmtree(machine.path("/srv/restored"))
    server = start(machine)
    machine.script(get_back)
    equal(sql(machine, state, "restored"), lost, "the rows")
    equal(programs(machine, "restored"), ["daily", "money", "never", "pay"], "triggers, events, procedures and functions")
    equal(sql(machine, "call pay(1); select money()", "restored"), "20001", "what they do")
    case("destroyed and got back, row by row, with triggers, events, procedures and functions")

    kept = machine.ids("orders-db")
    # The new server has no database of the name; what it says goes into no snapshot.
    machine.strongroom("run", code=1).says("shop.sql: mariadb-dump failed", "Unknown database 'shop'")
    sql(machine, "create database shop")
    sql(machine, tables("bigint auto_increment primary key") + PROGRAMS, "shop")

    def cut(text):
        dump = text[text.index('command = ['):text.index('expect_tail')]
        argv = 'mariadb-dump --defaults-file=/etc/shop/my.cnf shop | head -n -1'
        return text.replace(dump, f'command = ["sh", "-c", "{argv}"]\n')

    machine.domains(RECIPE, cut)
    machine.strongroom("run", code=1).says("it does not end with", "expect_tail")
    equal(machine.ids("orders-db"), kept, "snapshots")
    check('strongroom_attempt_success{domain="orders-db"} 0' in machine.metrics(), machine.metrics())
    machine.domains(RECIPE)
    machine.strongroom("run").says("orders-db: ok")
    case("a dump that failed, and one that was cut at the end of a line, leave no snapshot")

    # A dump by somebody who may not see them is whole in every other way, and ends with 0.
    sql(machine, "revoke select on mysql.proc from backup@localhost")
    machine.strongroom("run").says("orders-db: ok")
    record = machine.drill("orders-db", code=4)
    check("step 4" in record["message"], record["message"])
    case("a dump without procedures and functions fails the drill")


main(test)
