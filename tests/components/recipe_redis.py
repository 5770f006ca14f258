#!/usr/bin/env python3
"""docs/recipes/redis.md with a real server: backed up under write load, rehearsed, destroyed, got back."""
import shutil
import subprocess

from common import ACCOUNTS, ClientLoad, blocks, case, check, equal, main, need

RECIPE = "redis"
DATA = "var/lib/redis"


def start(machine):
    need("redis-server", "redis-cli", "redis-check-rdb", path=machine.env["PATH"])
    socket = machine.folder("var/run/redis", "redis") / "redis.sock"
    argv = ["redis-server", "--port", "0", "--unixsocket", socket, "--unixsocketperm", "777", "--dir", machine.folder(DATA, "redis"), "--save", "", "--repl-diskless-sync-delay", "0"]
    # It answers also while it loads, but not with PONG.
    return machine.start(argv, "redis", lambda: "PONG" in ask_at(machine, socket, "ping"))


def ask_at(machine, socket, *words):
    return subprocess.run(["redis-cli", "-s", str(socket), *words], env=machine.env, capture_output=True, text=True).stdout.strip()


def ask(machine, *words):
    return machine.ask("redis-cli", "-s", machine.path("/var/run/redis/redis.sock"), *words)


def transfer(number):
    """Moves money between accounts in a MULTI, and counts."""
    moves = f"decr account:{number % ACCOUNTS}\nincr account:{(number * 7 + 1) % ACCOUNTS}\nincr transfers\n"
    return f"multi\n{moves}exec\n"


def balances(machine):
    return [int(value) for value in ask(machine, "mget", *(f"account:{number}" for number in range(ACCOUNTS))).split()]


def test(machine):
    server = start(machine)
    for number in range(ACCOUNTS):
        ask(machine, "set", f"account:{number}", "100")
    ask(machine, "set", "total", str(100 * ACCOUNTS))
    ask(machine, "rpush", "mails", "ä", "b c")
    machine.plan(RECIPE)
    get_back = blocks(f"recipes/{RECIPE}.md", "sh")[0]

    def transfers():
        return int(ask(machine, "get", "transfers"))

    ask(machine, "set", "transfers", "0")
    load = ClientLoad(machine, ["redis-cli", "-s", machine.path("/var/run/redis/redis.sock")], transfer)
    before = transfers()
    machine.strongroom("run").says("queue: ok")
    after = transfers()
    check(after > before, f"nothing was written meanwhile: {before} transfers, and then {after}")
    written = load.end()
    equal(transfers(), written, "what the writer wrote, and what is there")
    check("redis_version:" in machine.snapshots("queue")[-1]["provenance"]["facts"]["server"], "no version")
    case("backed up under write load, to both repositories")

    for repository in ["local", "offsite"]:
        record = machine.drill("queue")
        equal((record["outcome"], record["repository"]), ("pass", repository), "the drill")
        phases = [one["phase"] for one in record["phases"]]
        check("start" in phases and "ready" in phases and "check" in phases, record)
    case("rehearsed from each repository, in a server of its own")

    machine.stop(server)
    shutil.rmtree(machine.path(DATA))
    machine.folder(DATA, "redis")
    machine.script(get_back)
    server = start(machine)
    equal(sum(balances(machine)), 100 * ACCOUNTS, "the sum of all accounts")
    check(before <= transfers() <= after, f"{before} <= {transfers()} <= {after}")
    case("destroyed and got back: the invariant holds")

    ask(machine, "set", "last", "of all")
    lost = balances(machine)
    machine.strongroom("run")
    machine.stop(server)
    shutil.rmtree(machine.path(DATA))
    machine.folder(DATA, "redis")
    shutil.rmtree(machine.path("/srv/restored"))
    machine.script(get_back)
    server = start(machine)
    equal((balances(machine), ask(machine, "get", "last"), ask(machine, "lrange", "mails", "0", "-1")), (lost, "of all", "ä\nb c"), "the keys")
    case("the newest snapshot has the last key")

    kept = machine.ids("queue")
    rdb = '"redis-cli", "-s", "/var/run/redis/redis.sock", "--rdb", "-"'
    cut = '"sh", "-c", "redis-cli -s /var/run/redis/redis.sock --rdb - | head -c -100"'
    machine.domains(RECIPE, lambda text: text.replace(rdb, cut))
    machine.strongroom("run", code=1).says("dump.rdb: tee_check: redis-check-rdb failed")
    machine.domains(RECIPE)
    machine.stop(server)
    machine.strongroom("run", code=1).says("dump.rdb: redis-cli failed")
    equal(machine.ids("queue"), kept, "snapshots")
    case("a file that was cut short, and a server that is gone, leave no snapshot")


main(test)
