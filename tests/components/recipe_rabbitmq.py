#!/usr/bin/env python3
"""docs/recipes/rabbitmq.md with a real broker: its definitions backed up, destroyed, got back."""
import json
import shutil
import socket

from common import blocks, case, equal, main, need

RECIPE = "rabbitmq"
DATA = "var/lib/rabbitmq"


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(machine):
    """A broker without listeners for clients; only its own tools talk to it, over loopback."""
    machine.env["PATH"] = f"/usr/lib/rabbitmq/bin:{machine.env['PATH']}"
    need("rabbitmq-server", "rabbitmqctl", "epmd", "jq", path=machine.env["PATH"])
    data = machine.folder(DATA, "rabbitmq")
    if "ERL_EPMD_PORT" not in machine.env:
        machine.env.update(ERL_EPMD_PORT=str(free_port()), ERL_EPMD_ADDRESS="127.0.0.1")
        machine.start(["epmd", "-address", "127.0.0.1"], "rabbitmq")
    # The cookie lets the tools in. Whoever they are run by has to own it.
    for home in [data, machine.path("/home")]:
        home.joinpath(".erlang.cookie").write_text("ACOOKIEOFTHETEST")
        home.joinpath(".erlang.cookie").chmod(0o400)
    if owner := machine.owner("rabbitmq"):
        shutil.chown(data / ".erlang.cookie", owner["user"], owner["group"])
    machine.write("etc/rabbitmq/rabbitmq.conf", "listeners.tcp = none\nlog.console = true\nlog.console.level = error\n")
    machine.write("etc/rabbitmq/enabled_plugins", "[].\n")
    machine.env.update(
        RABBITMQ_NODENAME="strongroom-test@localhost",
        RABBITMQ_CONFIG_FILE=str(machine.path("/etc/rabbitmq/rabbitmq.conf")),
        RABBITMQ_ENABLED_PLUGINS_FILE=str(machine.path("/etc/rabbitmq/enabled_plugins")),
        RABBITMQ_CONF_ENV_FILE="/dev/null",
        RABBITMQ_DIST_PORT=str(free_port()),
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}",
    )
    own = {"HOME": str(data), "RABBITMQ_MNESIA_BASE": str(data / "mnesia"), "RABBITMQ_LOG_BASE": str(data / "log"), "RABBITMQ_LOGS": "-"}
    return machine.start(["rabbitmq-server"], "rabbitmq", ["rabbitmqctl", "-q", "await_startup", "--timeout", "10"], own)


def test(machine):
    server = start(machine)
    definitions = {
        "vhosts": [{"name": "shop"}],
        "users": [{"name": "shop", "password": "a password", "tags": ""}],
        "permissions": [{"user": "shop", "vhost": "shop", "configure": "^mails", "write": ".*", "read": ".*"}],
        "queues": [{"name": name, "vhost": "shop", "durable": True, "auto_delete": False, "arguments": {}} for name in ["mails", "orders"]],
        "policies": [{"name": "limits", "vhost": "shop", "pattern": "^mails$", "apply-to": "queues", "definition": {"max-length": 1000}, "priority": 0}],
    }
    kinds = [*definitions]
    machine.write("etc/shop/queues.json", json.dumps(definitions))
    machine.ask("rabbitmqctl", "-q", "import_definitions", machine.path("/etc/shop/queues.json"))
    machine.plan(RECIPE)

    def state():
        found = json.loads(machine.ask("rabbitmqctl", "-q", "export_definitions", "-"))
        return {kind: sorted(json.dumps(one, sort_keys=True) for one in found[kind]) for kind in kinds}

    machine.strongroom("run").says("queue: ok")
    equal(machine.snapshots("queue")[-1]["provenance"]["consistency"], "application", "consistency")
    record = machine.drill("queue")
    equal(record["outcome"], "pass", "the drill")
    case("definitions backed up and looked at")

    lost = state()
    machine.stop(server)
    kept = machine.ids("queue")
    machine.strongroom("run", code=1).says("definitions.json: rabbitmqctl failed")
    equal(machine.ids("queue"), kept, "snapshots")
    shutil.rmtree(machine.path(DATA))
    machine.path("/home/.erlang.cookie").unlink()
    server = start(machine)
    equal(state()["queues"], [], "queues of a new broker")
    machine.script(blocks(f"recipes/{RECIPE}.md", "sh")[0])
    equal(state(), lost, "the definitions")
    machine.ask("rabbitmqctl", "-q", "authenticate_user", "shop", "a password")
    case("destroyed and got back, with passwords")


main(test)
