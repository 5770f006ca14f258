"""A PostgreSQL server of the test's own."""
import signal

from common import blocks, need

DATA = "var/lib/postgresql"


def start(machine):
    """Starts a server with a new, empty cluster on a socket; the services are those of the recipe."""
    need("initdb", "postgres", "pg_dump", "psql", path=machine.env["PATH"])
    machine.env["PGSYSCONFDIR"] = str(machine.path("/etc/postgresql-common"))
    services = machine.here(blocks("recipes/postgresql.md", "ini")[0])
    shop = services[services.index("[shop]"):services.index("[server]")]
    drill = shop.replace("[shop]", "[drill]").replace("dbname=shop", "dbname=drill")
    machine.write("etc/postgresql-common/pg_service.conf", services + drill)
    data = machine.folder(DATA, "postgres")
    socket = machine.folder("var/run/postgresql", "postgres")
    machine.prepare(["initdb", "-A", "trust", "-U", "postgres", "-N", "-E", "UTF8", "-D", data], "postgres")
    settings = {"listen_addresses": "", "unix_socket_directories": socket, "fsync": "off", "lc_messages": "C"}
    given = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return machine.start(["postgres", "-D", data, *given], "postgres", ["psql", "service=server", "-Atc", "select 1"])


def stop(machine, server):
    """Ends it in an orderly way, within a moment."""
    machine.stop(server, signal.SIGINT)


def sql(machine, statements, database="shop"):
    """What statements print."""
    return machine.ask("psql", f"service=server dbname={database}", "-v", "ON_ERROR_STOP=1", "-qAtc", statements)
