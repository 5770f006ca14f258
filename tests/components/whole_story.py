#!/usr/bin/env python3
"""The whole story: a Django application with PostgreSQL, attachments and sessions in SQLite, run by the plan of
docs/recipes/django.md. Backed up to two repositories, changed, backed up under write load, rehearsed, damaged, recovered in
place, rolled back, recovered again, destroyed with its host, got back from the second site."""
import hashlib
import http.client
import json
import pathlib
import shutil
import signal
import socket
import sqlite3
import subprocess
import uuid

import postgresql
from common import VENV, Load, Skip, blocks, case, check, equal, main, need, within
from postgresql import sql

HERE = pathlib.Path(__file__).resolve().parent
RECIPE = "django"
DOMAINS = ["orders-db", "media", "state"]
ACCOUNTS = 50


class Shop:
    """The application, on the data that its environment names."""

    def __init__(self, machine):
        self.machine = machine
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def start(self):
        argv = [self.machine.path("/srv/shop/venv/bin/python"), "-m", "gunicorn", "--chdir", self.machine.path("/srv/shop"), "-w", "2", "-b", f"127.0.0.1:{self.port}", "shop.wsgi"]
        self.process = self.machine.start(argv, ready=lambda: self.is_ready())

    def is_ready(self):
        try:
            return self.ask("GET", "/healthz")[0] == 200
        except OSError:
            return False

    def ask(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def order(self, number):
        """One order with an attachment."""
        attachment = f"attachment of {number}: {uuid.uuid4()} " * 40
        fields = {"source": number % ACCOUNTS + 1, "target": (number * 7) % ACCOUNTS + 1}
        parts = [f'--xyz\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()]
        parts.append(f'--xyz\r\nContent-Disposition: form-data; name="attachment"; filename="a"\r\n\r\n{attachment}\r\n--xyz--\r\n')
        status, said = self.ask("POST", "/orders", "".join(parts), {"Content-Type": "multipart/form-data; boundary=xyz"})
        equal(status, 201, f"an order: {said[:500]}")

    def check(self, orders=None):
        equal(self.ask("GET", "/invariants"), (200, "ok"), "what is always true")
        counts = json.loads(self.ask("GET", "/invariants?counts")[1])
        if orders is not None:
            equal(counts["orders"], orders, "orders")
        return counts["orders"]


def application(machine):
    """Installs the application with its environment, and makes its tables where they are missing."""
    try:
        # The folder is there also where nothing could be installed into it.
        has_django = subprocess.run([VENV / "bin/python", "-c", "import django, gunicorn, psycopg"], capture_output=True).returncode == 0
    except OSError:
        has_django = False
    if not has_django:
        raise Skip(f"there is no Django in {VENV}: tests/components/install.sh installs it")
    shutil.copytree(HERE / "shop", machine.path("/srv/shop"), dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    machine.write("srv/shop/REVISION", "3f2a1c\n")
    machine.path("/srv/shop/venv").symlink_to(VENV)
    machine.env.update(PGSERVICE="shop", SHOP_SECRET="not one", PYTHONDONTWRITEBYTECODE="1")
    machine.env.update(SHOP_MEDIA=str(machine.path("/srv/shop/media")), SHOP_SESSIONS=str(machine.path("/var/lib/shop/sessions.db")))


def migrate(machine):
    for database in ["default", "sessions"]:
        machine.ask(machine.path("/srv/shop/venv/bin/python"), machine.path("/srv/shop/manage.py"), "migrate", "--database", database)


# What systemd does for the shop: stop and start may be said twice.
SYSTEMCTL = """#!/bin/sh
set -eu
pid=/run/shop.pid
case $1 in
stop)
  if [ -e "$pid" ]; then
    kill "$(cat "$pid")"
    while [ -e "$pid" ]; do sleep 0.1; done
  fi ;;
start)
  # Once it has its pid file, it can be stopped.
  [ -e "$pid" ] || /srv/shop/venv/bin/python -m gunicorn --chdir /srv/shop -w 2 -b 127.0.0.1:8000 --daemon --pid "$pid" shop.wsgi
  for i in $(seq 600); do [ -e "$pid" ] && exit 0; sleep 0.1; done
  exit 1 ;;
esac
"""


def damage(machine):
    """What somebody does who means harm, or errs."""
    sql(machine, "delete from orders_order where id % 2 = 0; update orders_account set balance = 7")
    for number, path in enumerate(sorted(machine.path("/srv/shop/media/orders").iterdir())):
        path.unlink() if number % 3 == 0 else path.write_bytes(b"pay")
    database = sqlite3.connect(machine.path("/var/lib/shop/sessions.db"))
    database.execute("delete from visits_visit")
    database.commit()
    database.close()


def recovered(machine, shop):
    """Recovers all of it, and tells what was done."""
    done = machine.strongroom("recover", *DOMAINS, "--json", code=3)
    lines = done.lines("recovery")
    equal([line["domain"] for line in lines], DOMAINS, "the order")
    equal([line["outcome"] for line in lines], ["partial", "recovered", "recovered"], done.text)
    check("roles.sql" in str(lines[0]["left"]), lines[0])
    check(shop.is_ready(), "the shop is not up again")
    return lines


def judged(machine, worst, missed=frozenset(), unknown=frozenset()):
    """What `status`, `compliance` and the report say where all domains are as well as each other, with targets that are missed and
    such that nobody knows of; returns what `status` says of each."""
    told = health(machine, {"ok": 0, "warning": 3, "unknown": 5, "critical": 4}[worst], dict.fromkeys(DOMAINS, worst))
    equal(standing(machine, 4 if missed else 5 if unknown else 0), missed | unknown, "targets that are missed, or that nobody knows of")
    report(machine, worst, len(missed))
    return told


def stands(machine, *kept):
    """What status, compliance and report say: all is well, and which domains can be rolled back."""
    told = judged(machine, "ok")
    offered = [domain for domain in DOMAINS if any("recover --rollback" in reason for reason in told[domain]["reasons"])]
    equal(offered, list(kept), "domains that can be rolled back")


def everything(machine):
    """All data of the application, as it is now."""
    rows = [sql(machine, f"select md5(string_agg(t::text, ' ' order by id)) from {table} t") for table in ["orders_account", "orders_order"]]
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in machine.path("/srv/shop/media/orders").iterdir()}
    database = sqlite3.connect(machine.path("/var/lib/shop/sessions.db"))
    sessions = [database.execute(f"select * from {table} order by id").fetchall() for table in ["visits_visitor", "visits_visit"]]
    database.close()
    return rows, files, sessions


def health(machine, code, expected):
    """What `status` says of each domain."""
    done = machine.strongroom("status", "--json", code=code)
    found = {line["domain"]: line["health"] for line in done.lines("domain")}
    equal(found, expected, f"status: {done.stdout}")
    return {line["domain"]: line for line in done.lines("domain")}


def standing(machine, code):
    """What `compliance` says of targets that are not met."""
    controls = machine.strongroom("compliance", "--json", code=code).lines("control")
    return {(line["domain"], line["control"]) for line in controls if line["standing"] != "met"}


def report(machine, health, violated):
    """The page, which has to say so."""
    path = machine.path("/var/tmp/report.html")
    summary = machine.strongroom("report", "--html", path, "--json").lines("summary")[0]
    equal((summary["health"], summary["violated"]), (health, violated), "the report")
    return path.read_text()


def test(machine):
    need("jq", "curl", path=machine.env["PATH"])
    server = postgresql.start(machine)
    application(machine)
    for folder in ["srv/shop/media", "var/lib/shop"]:
        machine.path(folder).mkdir(parents=True)
    machine.write("etc/shop/shop.ini", "color = blue\n")
    sql(machine, "create role shop", "postgres")
    sql(machine, "create database shop", "postgres")
    migrate(machine)
    sql(machine, f"insert into orders_account (balance) select 100 from generate_series(1, {ACCOUNTS})")
    shop = Shop(machine)
    machine.words["127.0.0.1:8000"] = f"127.0.0.1:{shop.port}"
    shop.start()
    for number in range(20):
        shop.order(number)
    shop.check(20)
    machine.plan(RECIPE)

    health(machine, 4, dict.fromkeys(DOMAINS, "critical"))
    check(("orders-db", "rpo") in standing(machine, 4), "a domain without a snapshot meets its targets")
    unmeasured = {("orders-db", "rto"), ("media", "rto")}
    report(machine, "critical", len(standing(machine, 4) - unmeasured))
    case("before the first run everything is red")

    machine.strongroom("run", "--due").says("3 ok, 0 partial, 0 failed, 0 skipped")
    unrehearsed = {("orders-db", "drill"), ("media", "drill")}
    judged(machine, "ok", unrehearsed, unmeasured)
    equal(machine.strongroom("run", "--due").stdout, "nothing is due\n", "a second run")
    case("backed up to two repositories: what is missing still is a rehearsal")

    for number in range(20, 40):
        shop.order(number)
    load = Load(machine, lambda number: shop.order(number + 40), pause=0.01)
    before = shop.check()
    machine.strongroom("run").says("3 ok, 0 partial, 0 failed, 0 skipped")
    after = shop.check()
    check(after > before, f"nothing was ordered meanwhile: {before} orders, and then {after}")
    written = load.end()
    loaded = shop.check(40 + written)
    for domain in DOMAINS:
        equal(len(machine.snapshots(domain)), 2, f"snapshots of {domain}")
    told = judged(machine, "ok", unrehearsed, unmeasured)
    latest = {domain: machine.snapshots(domain)[-1]["id"] for domain in DOMAINS}
    equal({domain: told[domain]["repositories"][0]["snapshot_id"] for domain in DOMAINS}, latest, "the newest snapshots, says status")
    case("backed up again under write load")

    record = machine.drill("shop")
    equal((record["outcome"], record["repository"], [one["domain"] for one in record["restored"]]), ("pass", "local", DOMAINS), "the drill")
    equal([one["phase"] for one in record["phases"]], ["locate", "fetch", "verify", "load", "start", "ready", "check", "cleanup"], "phases")
    equal(record["rto"], 45 * 60, "the time within which it has to be back")
    equal(machine.drill("shop")["repository"], "offsite", "the next one")
    check(not list(machine.path("/var/tmp/strongroom-drill").iterdir()), "the drill left something behind")
    equal(sql(machine, "select count(*) from pg_database where datname = 'drill'", "postgres"), "0", "databases the drill left")
    shop.check(loaded)
    equal(judged(machine, "ok")["orders-db"]["drill"]["outcome"], "pass", "status of the drill")
    case("rehearsed from both: started on the restored data, asked over HTTP; the running one was not touched")

    machine.strongroom("verify", "--read", "100%").says("local", "offsite")
    told = judged(machine, "ok")
    check(0 < told["orders-db"]["recovery_seconds"] < 45 * 60, told["orders-db"])
    check("A drill on " in machine.strongroom("runbook").stdout, "the runbook does not know how long it takes")
    machine.strongroom("log", "--verify")
    page = report(machine, "ok", 0)
    equal(page.count("all signed and in one chain"), 2, "verdicts on logs")
    check(all(f">{domain}<" in page for domain in DOMAINS), "the report lacks a domain")
    case("all targets are met, and the report and the runbook know the time that a recovery takes")

    # The data is fine, and the application is not.
    machine.domains(RECIPE, lambda text: text.replace('"-b", "127.0.0.1:${port}", "shop.wsgi"', '"-b", "127.0.0.1:${port}", "shop.wsgi:missing"'))
    record = machine.drill("shop", code=4)
    equal(record["repository"], "local", "where it failed")
    check("python ended before it was ready" in record["message"], record["message"])
    check({"fetch", "verify", "load"} <= {one["phase"] for one in record["phases"]}, record)
    told = judged(machine, "critical", unrehearsed | {("state", "drill")})
    check(any("drill shop from local" in reason for reason in told["media"]["reasons"]), told["media"])
    case("an application that does not start fails the drill although its data is fine")

    # The application that is in use would answer in place of the one that is rehearsed.
    machine.domains(RECIPE, lambda text: text.replace("127.0.0.1:${port}", f"127.0.0.1:{shop.port}"))
    record = machine.drill("shop", code=5)
    check("answers already" in record["message"], record["message"])
    machine.domains(RECIPE)
    equal(machine.drill("shop")["repository"], "local", "the drill afterwards")
    equal(standing(machine, 0), set(), "targets that are missed")
    reasons = machine.strongroom("status", "--json", code=3).lines("domain")[0]["reasons"]
    check(any("the drill shop from offsite could not be verified" in reason for reason in reasons), reasons)
    equal(machine.drill("shop")["repository"], "offsite", "the one that could not be verified")
    judged(machine, "ok")
    case("a port that is in use is told of: nothing was rehearsed")

    # Quiet now, so that all that is lost is known.
    machine.strongroom("run")
    lost, orders = everything(machine), shop.check()
    written_plan = {name: machine.path(f"/etc/strongroom/{name}").read_text() for name in ["strongroom.toml", f"conf.d/{RECIPE}.toml"]}
    machine.stop(shop.process, signal.SIGTERM)
    machine.write("bin/systemctl", machine.here(SYSTEMCTL), 0o755)
    machine.ask("sh", "-c", "systemctl start shop")
    within(300, "the shop is up", shop.is_ready)
    damage(machine)
    damaged = everything(machine)
    check(damaged != lost, "nothing was damaged")
    machine.strongroom("recover", *DOMAINS, "--plan").says("orders-db", "media", "state")
    equal(everything(machine), damaged, "what a look does")
    recovered(machine, shop)
    equal(everything(machine), lost, "the data")
    shop.check(orders)
    stands(machine, *DOMAINS)
    case("damaged, and recovered in place and in order: databases, files and sessions as they were")

    machine.strongroom("recover", "--rollback")
    equal(everything(machine), damaged, "what was there before")
    stands(machine)
    within(300, "the shop is up", shop.is_ready)
    case("rolled back: what was there before is there again")

    recovered(machine, shop)
    machine.strongroom("recover", "--commit")
    equal(everything(machine), lost, "the data")
    shop.check(orders)
    equal(sql(machine, "select string_agg(datname, ' ' order by datname) from pg_database where not datistemplate", "postgres"), "postgres shop", "databases")
    kept = [path for place in ["srv", "var/lib/shop", "etc"] for path in machine.path(place).rglob(".strongroom-recover*")]
    equal(kept, [], "what is kept after a commit")
    stands(machine)
    case("recovered again, and what was there before removed")

    machine.ask("sh", "-c", "systemctl stop shop")
    machine.stop(server)
    for place in [postgresql.DATA, "srv", "etc/shop", "etc/strongroom/strongroom.toml", "etc/strongroom/conf.d", "var/lib/shop", "home"]:
        path = machine.path(place)
        path.unlink() if path.is_file() else shutil.rmtree(path)
    machine.path("/srv").mkdir()
    application(machine)
    server = postgresql.start(machine)
    steps = blocks(f"recipes/{RECIPE}.md", "sh")
    recover = next(step for step in steps if "strongroom recover" in step)
    machine.script("\n".join(steps))

    def is_back():
        equal(everything(machine), lost, "the data")
        equal(machine.path("/etc/shop/shop.ini").read_text(), "color = blue\n", "the settings")
        shop.check(orders)

    is_back()
    lonely = {(domain, control) for domain in DOMAINS for control in ["copies", "sites", "verify", "retention"]} - {("state", "sites")}
    judged(machine, "unknown", unknown=lonely)
    case("the host destroyed with one repository: recovered in order, row by row and file by file, from the other")

    done = machine.strongroom("recover", "--rollback", "--json")
    equal([(line["domain"], line["outcome"]) for line in done.lines("recovery")], [(domain, "rolled-back") for domain in reversed(DOMAINS)], "the way back")
    equal(sql(machine, "select count(*) from pg_tables where schemaname = 'public'"), "0", "tables of a new host")
    for folder in ["srv/shop/media", "etc/shop"]:
        left = [path.name for path in machine.path(folder).iterdir() if not path.name.startswith(".strongroom-recover-")]
        equal(left, [], f"what a new host has in {folder}")
    judged(machine, "unknown", unknown=lonely)
    machine.script(recover)
    machine.strongroom("recover", "--commit")
    is_back()
    judged(machine, "unknown", unknown=lonely)
    case("rolled back to what a new host has, and recovered again")

    plan = {name: machine.path(f"/etc/strongroom/{name}").read_text() for name in written_plan}
    equal(plan, written_plan, "the plan")
    machine.make_repositories()
    told = health(machine, 4, dict.fromkeys(DOMAINS, "critical"))
    reasons = {repo["repository"]: repo["reasons"] for repo in told["media"]["repositories"]}
    equal(reasons, {"local": ["there is no complete snapshot"], "offsite": []}, "why")
    missed = standing(machine, 4)
    check({("orders-db", "copies"), ("orders-db", "sites"), ("media", "copies"), ("state", "copies")} <= missed, missed)
    report(machine, "critical", len(missed))
    machine.strongroom("run", "--due").says("3 ok")
    judged(machine, "ok")
    machine.strongroom("check", "--read-data")
    case("the new host is red until it is backed up to both places again")


main(test)
