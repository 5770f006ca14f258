"""What the tests with real components share: a machine below a folder of its own, the plans out of the documents, servers
that end with the test, writers that keep an invariant."""
import argparse
import glob
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
# Where install.sh installs what is Python's.
VENV = pathlib.Path(os.environ.get("COMPONENTS_VENV", ROOT / "target/components-venv"))
# What a script ends with that could not be run here: run.py counts it as skipped.
SKIPPED = 77
# Key derivation as cheap as it may be: it is not what is tested.
CHEAP = ["--kdf-memory", "19MiB", "--kdf-passes", "2"]
# Seconds after which something hangs, also on a slow machine that does other things beside.
PATIENCE = 600
# Folders of a machine that a plan names with whole paths: they are moved below the test's own.
PLACES = re.compile(r"/(etc|srv|mnt|var|run|usr/lib/strongroom)/")


class Skip(Exception):
    """A component cannot be had here."""


def need(*programs, path=None):
    """The programs, or the test is skipped."""
    missing = [program for program in programs if not shutil.which(program, path=path)]
    if missing:
        raise Skip(f"there is no {', '.join(missing)}")


def blocks(document, language):
    """The code blocks of a document below docs/ that are marked with this language."""
    text = (DOCS / document).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def check(condition, message):
    if not condition:
        raise AssertionError(message)


def equal(found, expected, what):
    check(found == expected, f"{what}: {found!r}, expected {expected!r}")


def within(seconds, what, condition):
    """Waits until something is so."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        check(time.monotonic() < until, f"after {seconds} s still not: {what}")
        time.sleep(0.05)
    return found


class Done:
    """A command of the program that has ended."""

    def __init__(self, args, done):
        self.args, self.code = args, done.returncode
        self.stdout, self.stderr = done.stdout, done.stderr
        self.text = f"strongroom {' '.join(args)}: exit code {self.code}\n{self.stdout}{self.stderr}"

    def lines(self, kind):
        """The JSON lines of this type."""
        found = [json.loads(line) for line in self.stdout.splitlines() if line.startswith("{")]
        return [line for line in found if line.get("type") == kind]

    def says(self, *texts):
        for text in texts:
            check(text in self.stdout + self.stderr, f"it does not say {text!r}: {self.text}")
        return self


class Machine:
    """A machine below a folder: /etc, /srv, /mnt and /var of plans and commands lead there."""

    def __init__(self, binary):
        self.binary = pathlib.Path(binary).resolve()
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="sr-", dir="/tmp"))
        self.root.chmod(0o755)
        self.running, self.mounts, self.loads = [], [], []
        # What else of plans and commands is another one here.
        self.words = {}
        for place in ["bin", "home", "etc/strongroom/conf.d", "srv", "mnt", "run", "var/tmp", "var/lib/node_exporter"]:
            (self.root / place).mkdir(parents=True)
        (self.root / "bin/strongroom").symlink_to(self.binary)
        (self.root / "etc/strongroom/password").write_text("a password\n")
        (self.root / "etc/strongroom/offsite-password").write_text("another password\n")
        search = [self.root / "bin", *glob.glob("/usr/lib/postgresql/15/bin"), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        self.env = {
            "PATH": ":".join(map(str, search)),
            "HOME": str(self.root / "home"),
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "STRONGROOM_CONFIG": str(self.path("/etc/strongroom/strongroom.toml")),
            "STRONGROOM_REPOSITORY": str(self.path("/srv/backup/shop")),
            "STRONGROOM_PASSWORD_FILE": str(self.path("/etc/strongroom/password")),
        }

    def path(self, name):
        return self.root / name.lstrip("/")

    def here(self, text):
        """A text with the machine's own paths and words."""
        for word, own in self.words.items():
            text = text.replace(word, own)
        return PLACES.sub(rf"{self.root}/\1/", text)

    def write(self, name, text, mode=0o644):
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    # --- The plan

    def plan(self, recipe):
        """The plan of the guide with what a recipe adds to it; makes those of its repositories that are missing."""
        self.begin_plan()
        self.domains(recipe)
        self.strongroom("config", "check").says("0 errors, 0 violations")

    def begin_plan(self):
        guide = (DOCS / "guide.md").read_text()
        self.write("etc/strongroom/strongroom.toml", self.here(re.search(r"<<'PLAN'\n(.*?)^PLAN$", guide, re.M | re.S)[1]))
        self.make_repositories()

    def make_repositories(self):
        """Those of the plan that are missing."""
        for repo in tomllib.loads(self.path("/etc/strongroom/strongroom.toml").read_text())["repo"].values():
            if not pathlib.Path(repo["url"]).exists():
                password = {**self.env, "STRONGROOM_PASSWORD_FILE": repo["password_file"]}
                self.strongroom("-r", repo["url"], "init", *CHEAP, env=password)

    def domains(self, recipe, change=None):
        """What a recipe adds to the plan, perhaps changed: what is to be changed has to be there."""
        found = "\n".join(blocks(f"recipes/{recipe}.md", "toml"))
        text = change(found) if change else found
        check(not change or text != found, "there is nothing to be changed in the recipe any more")
        self.write(f"etc/strongroom/conf.d/{recipe}.toml", self.here(text))

    def strongroom(self, *args, code=0, env=None):
        args = [str(arg) for arg in args]
        done = subprocess.run([self.binary, *args], env=env or self.env, capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL)
        done = Done(args, done)
        check(done.code == code, f"expected exit code {code}: {done.text}")
        return done

    def offsite(self):
        """The environment in which the second repository is the one."""
        return {**self.env, "STRONGROOM_REPOSITORY": str(self.path("/mnt/offsite/shop")), "STRONGROOM_PASSWORD_FILE": str(self.path("/etc/strongroom/offsite-password"))}

    def snapshots(self, domain):
        """The snapshots of a domain: how many are in each repository has to be the same."""
        here, there = (json.loads(self.strongroom("snapshots", "--domain", domain, "--json", env=env).stdout) for env in (self.env, self.offsite()))
        equal(len(there), len(here), f"snapshots of {domain} in the second repository")
        return here

    def ids(self, domain):
        return [snapshot["id"] for snapshot in self.snapshots(domain)]

    def drill(self, name, *more, code=0):
        """The record of a drill."""
        done = self.strongroom("drill", name, "--json", *more, code=code)
        return done.lines("drill")[0]

    def metrics(self):
        return self.path("/var/lib/node_exporter/strongroom.prom").read_text()

    def script(self, text, env=None):
        """Commands of a recipe, as they stand there."""
        done = subprocess.run(["sh", "-euc", self.here(text)], env={**self.env, **(env or {})}, capture_output=True, text=True, timeout=600, cwd=self.root, stdin=subprocess.DEVNULL)
        check(done.returncode == 0, f"the commands of the recipe end with {done.returncode}:\n{text}\n{done.stdout}{done.stderr}")
        return done.stdout

    def ask(self, *argv, code=0, env=None):
        """What a command prints."""
        argv = [str(word) for word in argv]
        done = subprocess.run(argv, env=env or self.env, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
        check(done.returncode == code, f"{' '.join(argv)} ends with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    # --- Servers

    def owner(self, user):
        """How to run something as this user: root is refused by some servers, and nobody else can choose."""
        if os.getuid() != 0:
            return {}
        names = [entry.pw_name for entry in pwd.getpwall()]
        entry = pwd.getpwnam(user if user in names else "nobody")
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def folder(self, name, user):
        """A folder of a server's own."""
        path = self.path(name)
        path.mkdir(parents=True, exist_ok=True)
        if owner := self.owner(user):
            os.chown(path, owner["user"], owner["group"])
        return path

    def prepare(self, argv, user):
        """Runs a command of a server's to its end."""
        argv = [str(word) for word in argv]
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=PATIENCE, cwd=self.root, **self.owner(user))
        check(done.returncode == 0, f"{' '.join(argv)} ends with {done.returncode}: {done.stdout}{done.stderr}")

    def start(self, argv, user=None, ready=None, env=None, seconds=300):
        """Starts a server and waits until it is ready: a command that ends with 0, or a function."""
        log = open(self.root / f"server-{len(list(self.root.glob('server-*.log')))}.log", "w+b")
        as_user = self.owner(user) if user else {}
        argv = [str(word) for word in argv]
        process = subprocess.Popen(argv, env={**self.env, **(env or {})}, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.root, start_new_session=True, **as_user)
        self.running.append(process)
        is_ready = ready if callable(ready) else lambda: subprocess.run(ready, env=self.env, capture_output=True).returncode == 0

        def up():
            if process.poll() is not None:
                log.seek(0)
                raise AssertionError(f"{argv[0]} ended: {log.read().decode(errors='replace')}")
            return is_ready()

        if ready:
            within(seconds, f"{argv[0]} is ready", up)
        return process

    def stop(self, process, how=signal.SIGKILL):
        """Ends a server, as a machine that burns down does unless it is asked to."""
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            pass
        process.wait(30)
        if process in self.running:
            self.running.remove(process)

    def left(self):
        """Processes that this test started, or that they started: they have its plan in their environment."""
        mark = f"STRONGROOM_CONFIG={self.env['STRONGROOM_CONFIG']}".encode()
        for environment in glob.glob("/proc/[0-9]*/environ"):
            try:
                found = pathlib.Path(environment).read_bytes().split(b"\0")
            except OSError:  # it has ended, or is somebody else's
                continue
            if mark in found:
                yield int(environment.split("/")[2])

    def is_removed(self):
        """Removes the folder; what a process that is about to end writes into it meanwhile takes another attempt."""
        shutil.rmtree(self.root, ignore_errors=True)
        return not self.root.exists()

    def close(self):
        """Ends and removes everything that the test has made; what goes wrong with some of it keeps none of the rest."""
        wrong = []

        def attempt(work, *args):
            try:
                work(*args)
            except Exception as error:  # told when everything was tried
                wrong.append(error)

        for load in self.loads:
            attempt(load.end)
        for process in list(self.running):
            attempt(self.stop, process)
        for process in self.left():
            attempt(kill, process)
        for mount in reversed(self.mounts):
            attempt(self.ask, "umount", "-l", mount)
        attempt(within, PATIENCE, f"{self.root} is removed", self.is_removed)
        if wrong:
            raise ExceptionGroup("at the end of the test", wrong)


def kill(process):
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        pass


class Load:
    """Writes all the time, until it is ended: calls `step` with 1, 2, 3, …; a failure of it is a failure of the test."""

    def __init__(self, machine, step, pause=0.002):
        self.count, self.failure = 0, None
        self.over = threading.Event()
        self.step, self.pause = step, pause
        self.thread = threading.Thread(target=self.work, daemon=True)
        machine.loads.append(self)
        self.thread.start()
        within(300, "something was written", lambda: self.count > 20 or self.failure)

    def work(self):
        try:
            while not self.over.wait(self.pause):
                self.step(self.count + 1)
                self.count += 1
        except Exception as error:  # told by `end`
            self.failure = error

    def end(self):
        self.over.set()
        self.thread.join(PATIENCE)
        check(not self.thread.is_alive(), "the writer hangs")
        if self.failure:
            raise self.failure
        return self.count


class ClientLoad(Load):
    """Writes through a client that reads what it is to do, as `step` says it."""

    def __init__(self, machine, client, step, env=None):
        self.machine, self.said = machine, step
        self.client = subprocess.Popen(
            [str(word) for word in client], env={**machine.env, **(env or {})}, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, start_new_session=True,
        )
        machine.running.append(self.client)
        super().__init__(machine, self.send)

    def send(self, number):
        self.client.stdin.write(self.said(number).encode())
        self.client.stdin.flush()

    def end(self):
        if self.client in self.machine.running:
            self.over.set()
            self.thread.join(PATIENCE)
            check(not self.thread.is_alive(), "the writer hangs")
            said = self.client.communicate(timeout=PATIENCE)[1]
            self.machine.running.remove(self.client)
            # Before the failure of the thread, which only knows that nobody reads any more.
            equal(self.client.returncode, 0, f"the writer: {said.decode(errors='replace')}")
        return super().end()


def sql_load(machine, client):
    """Moves money between accounts through a client that reads statements."""
    return ClientLoad(machine, client, lambda number: f"begin; {transfer(number)} commit;\n")


ACCOUNTS = 200
# Accounts whose balance is not what their transfers make it, and money that was made or lost: 0 in any state that was ever committed.
WRONG = (
    "select (select count(*) from account a where a.balance <> 100 - (select count(*) from transfer t where t.source = a.id)"
    " + (select count(*) from transfer t where t.target = a.id))"
    f" + abs((select sum(balance) from account) - {100 * ACCOUNTS})"
)


def tables(serial):
    """A bank, as statements; `serial` is how this database numbers rows."""
    accounts = ", ".join(f"({number}, 100)" for number in range(ACCOUNTS))
    return (
        "create table account (id int primary key, balance int not null);"
        f"create table transfer (id {serial}, source int not null, target int not null);"
        "create index by_source on transfer (source); create index by_target on transfer (target);"
        f"insert into account values {accounts};"
    )


def transfer(number):
    """One transfer, which is to be a transaction."""
    source, target = number % ACCOUNTS, (number * 7 + 1) % ACCOUNTS
    return (
        f"update account set balance = balance - 1 where id = {source};"
        f"update account set balance = balance + 1 where id = {target};"
        f"insert into transfer (source, target) values ({source}, {target});"
    )


def case(name):
    """Tells run.py of a case that passed."""
    print(f"ok: {name}", flush=True)


def ended(_signal, frame):
    """Told to end: says where it was, and lets everything be closed."""
    traceback.print_stack(frame)
    sys.exit("it was told to end")


def main(test):
    """Runs a test on a machine of its own; ends with 0, 1 or SKIPPED."""
    signal.signal(signal.SIGTERM, ended)
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--binary", required=True, help="the program that is tested")
    machine = Machine(parser.parse_args().binary)
    code = 0
    try:
        test(machine)
    except Skip as reason:
        print(f"SKIPPED: {reason}")
        code = SKIPPED
    except Exception:
        traceback.print_exc()
        code = 1
    finally:
        try:
            machine.close()
        except Exception:
            traceback.print_exc()
            code = code or 1
    sys.exit(code)
