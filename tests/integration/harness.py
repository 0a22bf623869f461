# SPDX-License-Identifier: PostgreSQL
"""What integration tests stand on: a private server, a shop in a database of its own, the program, and live traffic.

Fixtures (conftest.py)
    server      the session's Server, without durability (fast)
    bare_shop   a Shop in a fresh database: tables, indexes, role, small data; no ledger
    shop        the same with the ledger installed
    own_shop    like shop, on a server of its own that a test may crash, restart or give a standby: shop.server

Server      .socket .log() .connect(dbname, user="postgres") .psql(dbname, *arguments) .stop() .crash() .restart(*settings)
            .start() .standby() -> Server
Shop        .name .connect(user="postgres", autocommit=True) .sql(query, *values) -> rows .value(query, *values)
            .populate(users=, items=, orders=)     replaces the data (template: 1000 users, 100 items, 300 stale orders)
            .conninfo(user="roundsman")            for the configuration; the least-privilege role
            .configure(jobs=, tables=, defaults=, ledger=, database=, **other) -> Path of a new configuration file. Default:
                                                   JOBS below, once a year in UTC, so that nothing is owed meanwhile;
                                                   groups given are merged into the default's, `jobs` replaces them;
                                                   Raw("…") is written as it stands. text=… writes just that text
            .roundsman(*arguments, config=, env=, timeout=, faketime="+1h") -> Result(status, out, err)
            .install(config=)                      --install as the superuser
            .command(*arguments, config=), .environment(env=, faketime=)   for a subprocess of your own (pexpect)
            .start(*arguments, config=, env=, faketime=) -> Process        in the background; no arguments: the daemon
            .runs(job=None) .leftovers() .lanes()  of the ledger, as dictionaries, oldest first
            .books() -> Books                      every user's points, item's stock, order's status
            .stale_orders(older_than="30 minutes", statuses=["PAYING"]) -> ids
            .hold(query, *values)                  with …: a transaction that has run the query and stays open
            .pace(seconds)                         from now on `where = "public.pace(id)"` is true, and takes so long for each row
            .traffic(threads=2)                    with … as traffic: a live shop; traffic.stop() and .taken (Books arithmetic)
Process     .pid .log() .wait_for(pattern, timeout=) -> match .signal(number) .wait(timeout=) -> status .stop() -> status
            .children() -> pids; used in a `with` it is stopped at the end
Books       .with_points(amount) .with_restock(add=, up_to=) .with_canceled(shop, ids): what the books must be afterwards;
            compare with ==; .explain(other) says what differs
wait_until(condition, timeout=20, what="…") -> the condition's first true value. Never sleep and hope.

Environment: ROUNDSMAN (the binary; default build/roundsman), ROUNDSMAN_WRAPPER ("valgrind -q --error-exitcode=99
--trace-children=yes"; timeouts grow tenfold), ROUNDSMAN_VAR (where servers live; default var/ in the checkout).
A report by a sanitizer or by valgrind, in whatever process, fails the test that ran it.
"""

import collections
import contextlib
import dataclasses
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import psycopg
import psycopg.rows

TOP = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("ROUNDSMAN") or TOP / "build" / "roundsman").absolute()
WRAPPER = shlex.split(os.environ.get("ROUNDSMAN_WRAPPER", ""))
VAR = pathlib.Path(os.environ.get("ROUNDSMAN_VAR") or TOP / "var").absolute()
PATIENCE = 10 if WRAPPER else 1  # what timeouts are multiplied by

# For the tests' own sessions: to compile a plan for their few rows takes longer than all else. The program's are left alone.
UNCOMPILED = "-c jit=off"

YEARLY = "0 0 1 1 *"
JOBS = [
    {"name": "daily-points", "kind": "points", "schedule": YEARLY, "amount": 10000, "catch_up": "all"},
    {"name": "restock", "kind": "restock", "schedule": YEARLY, "add": 10, "up_to": 100},
    {"name": "cancel-unpaid", "kind": "cancel", "schedule": YEARLY, "older_than": "30m"},
]

# How a broken memory access, a leak or undefined behavior ends a process: with a status that is none of ours.
SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=1:exitcode=86:verify_asan_link_order=0",
    "LSAN_OPTIONS": "exitcode=86",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}
COMPLAINT = re.compile(r"^.*(AddressSanitizer|LeakSanitizer|runtime error:|UndefinedBehaviorSanitizer|"
                       r"^==\d+== ).*$", re.MULTILINE)


class Raw(str):
    """A value for configure() that is written as it stands."""


def wait_until(condition, timeout=20, what=None):
    """Calls the condition until it gives something true, and returns that."""
    end = time.monotonic() + timeout * PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout * PATIENCE} s in vain for: {what or condition}")
        time.sleep(0.01)


def alive(connection):
    """The connection, or None where there is none any more. A new one costs the server more than most queries."""
    try:
        connection.execute("SELECT 1")
    except (AttributeError, psycopg.OperationalError):
        return None
    return connection


class Server:
    """A private server; see tests/server."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self._bin = None
        self._connection = None

    def _server(self, *arguments):
        done = subprocess.run([TOP / "tests" / "server", *map(str, arguments)], stdin=subprocess.DEVNULL, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stdout)
        return done.stdout.strip()

    def start(self, *settings):
        self._server("start", self.directory, "--fast", *settings)
        self.socket = self._server("socket", self.directory)
        return self

    def stop(self):
        self._server("stop", self.directory)

    def crash(self):
        self._server("crash", self.directory)

    def restart(self, *settings):
        self.stop()
        return self.start(*settings)

    def remove(self):
        self._server("remove", self.directory)

    def standby(self):
        """A hot standby of this server. Remove it yourself."""
        standby = Server(f"{self.directory}-standby")
        standby._server("standby", standby.directory, self.directory, "--fast")
        standby.socket = standby._server("socket", standby.directory)
        return standby

    def log(self):
        return (self.directory / "log").read_text(errors="replace")

    def conninfo(self, dbname, user="postgres"):
        return f"host={self.socket} port=5432 dbname={dbname} user={user}"

    def connect(self, dbname="postgres", user="postgres", autocommit=True, **more):
        return psycopg.connect(self.conninfo(dbname, user), autocommit=autocommit, **{"options": UNCOMPILED, **more})

    def psql(self, dbname, *arguments):
        self._bin = self._bin or pathlib.Path(self._server("bin"))
        done = subprocess.run([self._bin / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", self.conninfo(dbname),
                               *map(str, arguments)],
                              stdin=subprocess.DEVNULL, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, env={**os.environ, "LC_ALL": "C.UTF-8", "PGOPTIONS": UNCOMPILED})
        if done.returncode != 0:
            raise RuntimeError(done.stdout)
        return done.stdout

    def _administrator(self):
        self._connection = alive(self._connection) or self.connect()
        return self._connection

    def create_database(self, name, template):
        connection = self._administrator()
        strategy = " STRATEGY file_copy" if connection.info.server_version >= 150000 else ""  # half of the work
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"{strategy}')

    def drop_database(self, name):
        self._administrator().execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def create_template(self, name="shop_template"):
        """The shop with a small stock of data, to be copied for each test."""
        self._administrator().execute(f'CREATE DATABASE "{name}"')
        sql = TOP / "sql"
        self.psql(name, "-v", "users=1000", "-v", "items=100", "-v", "orders=300",
                  *(argument for file in ("shop.sql", "index-last-modified-at.sql", "role.sql", "shop-data.sql")
                    for argument in ("-f", sql / file)))
        return name


@dataclasses.dataclass
class Books:
    """What a conservation law speaks of. Arithmetic on it says what must be there after a round."""

    points: dict
    stock: dict
    status: dict

    def _copy(self):
        return Books(collections.Counter(self.points), collections.Counter(self.stock), dict(self.status))

    def with_points(self, amount):
        """After a round of points over all users: a deduction below zero is not made."""
        books = self._copy()
        books.points = {key: value + amount if value + amount >= 0 else value for key, value in self.points.items()}
        return books

    def with_restock(self, add, up_to=None):
        books = self._copy()
        books.stock = {key: value + add if up_to is None else max(value, min(value + add, up_to))
                       for key, value in self.stock.items()}
        return books

    def with_canceled(self, shop, orders):
        """After these orders were canceled."""
        books = self._copy()
        for item, quantity in shop.sql("SELECT item_id, sum(quantity)::bigint FROM shop.order_items"
                                       " WHERE order_id = ANY(%s) GROUP BY 1", list(orders)):
            books.stock[item] += quantity
        for user, points in shop.sql("SELECT user_id, sum(points_spent)::bigint FROM shop.orders"
                                     " WHERE id = ANY(%s) GROUP BY 1", list(orders)):
            books.points[user] += points
        books.status.update((order, "CANCELED") for order in orders)
        return books

    def with_taken(self, taken):
        """After live traffic took what it took (Traffic.taken)."""
        books = self._copy()
        for user, points in taken.points.items():
            books.points[user] -= points
        for item, stock in taken.stock.items():
            books.stock[item] -= stock
        books.status.update(taken.status)
        return books

    def explain(self, other):
        """The first few differences, for a message."""
        lines = []
        for what in ("points", "stock", "status"):
            mine, theirs = getattr(self, what), getattr(other, what)
            different = [key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)]
            if different:
                lines.append(f"{what} of {len(different)} rows, such as "
                             + ", ".join(f"{key}: {mine.get(key)} and {theirs.get(key)}" for key in different[:5]))
        return "; ".join(lines) or "nothing differs"


Result = collections.namedtuple("Result", "status out err")


def complain(text):
    """Fails when a sanitizer or valgrind has something to say in this output."""
    found = COMPLAINT.search(text)
    if found:
        raise AssertionError("a checker complains:\n" + text[found.start():][:6000])


class Process:
    """The program in the background, its output in a file."""

    def __init__(self, command, environment, path):
        self.path = path
        with open(path, "wb") as output:
            self.popen = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output,
                                          stderr=subprocess.STDOUT)
        self.pid = self.popen.pid

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        if self.popen.poll() is None:
            try:
                self.stop()
            finally:
                if self.popen.poll() is None:
                    self.popen.kill()
                    self.popen.wait()
        if kind is not None:
            print(f"---- output of {' '.join(map(str, self.popen.args))} ----\n{self.log()}")
        else:
            complain(self.log())

    def log(self):
        return self.path.read_text(errors="replace")

    def wait_for(self, pattern, timeout=20):
        """Waits until the output has this regular expression, and returns the match."""
        def look():
            found = re.search(pattern, self.log())
            if not found and self.popen.poll() is not None:
                found = re.search(pattern, self.log())
                assert found, f"ended with {self.popen.returncode} without saying {pattern!r}:\n{self.log()}"
            return found
        try:
            return wait_until(look, timeout, pattern)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None

    def signal(self, number):
        self.popen.send_signal(number)

    def wait(self, timeout=20):
        """Its exit status; -9 after SIGKILL."""
        return self.popen.wait(timeout * PATIENCE)

    def stop(self, timeout=20):
        """SIGTERM, then its exit status."""
        if self.popen.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def children(self):
        try:
            text = pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        except FileNotFoundError:
            return []
        return [int(word) for word in text.split()]


class Traffic:
    """A live shop: orders that take points and stock, each lock in the order that the shop's own transactions use."""

    def __init__(self, shop, threads):
        self.shop = shop
        self.taken = Books(collections.Counter(), collections.Counter(), {})
        self.longest = 0.0  # seconds that a transaction took
        self.done = 0
        self.errors = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(n, threads), daemon=True) for n in range(threads)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        wait_until(lambda: self.done >= len(self._threads) or self.errors, what="the first live transactions")
        return self

    def __exit__(self, kind, value, traceback):
        self.stop()

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        assert not self.errors, f"live traffic failed: {self.errors[0]}"

    def _run(self, number, threads):
        try:
            with self.shop.connect(autocommit=False) as connection:
                users = [row[0] for row in connection.execute("SELECT id FROM shop.users ORDER BY id")]
                items = [row[0] for row in connection.execute("SELECT id FROM shop.menu_items ORDER BY id")]
                connection.commit()
                turn = number
                while not self._stop.is_set():
                    self._order(connection, users[turn * 7919 % len(users)], items[turn * 104729 % len(items)])
                    turn += threads
        except Exception as error:  # noqa: BLE001 - it is the test's to judge
            self.errors.append(error)

    def _order(self, connection, user, item):
        begun = time.monotonic()
        with connection.transaction(), connection.cursor() as cursor:
            order = cursor.execute("INSERT INTO shop.orders (user_id, status, points_spent) VALUES (%s, 'PAYING', 1)"
                                   " RETURNING id", [user]).fetchone()[0]
            stock = cursor.execute("UPDATE shop.menu_items SET stock = stock - 1, last_modified_at = now()"
                                   " WHERE id = %s AND stock > 0", [item]).rowcount
            if stock:
                cursor.execute("INSERT INTO shop.order_items (order_id, item_id, quantity) VALUES (%s, %s, 1)",
                               [order, item])
            cursor.execute("UPDATE shop.users SET points = points - 1, last_modified_at = now()"
                           " WHERE id = %s AND points >= 1", [user])
            assert cursor.rowcount == 1, f"user {user} has no points"
        with self._lock:
            self.taken.status[order] = "PAYING"
            self.taken.points[user] += 1
            self.taken.stock[item] += stock
            self.longest = max(self.longest, time.monotonic() - begun)
            self.done += 1


def render(value, indent=""):
    """A Python value as libconfig text."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value}L" if abs(value) >= 2**31 else str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, dict):
        inner = indent + "  "
        return "{\n" + "".join(f"{inner}{key} = {render(item, inner)};\n" for key, item in value.items()) + indent + "}"
    if any(isinstance(item, dict) for item in value):
        return "( " + ",\n".join(render(item, indent) for item in value) + " )"
    return "[ " + ", ".join(render(item, indent) for item in value) + " ]"


class Shop:
    """One database with the shop in it."""

    def __init__(self, server, name, directory):
        self.server, self.name, self.directory = server, name, pathlib.Path(directory)
        self._connection = None
        self._config = None
        self._files = 0

    def connect(self, user="postgres", autocommit=True, **more):
        return self.server.connect(self.name, user, autocommit, **more)

    def _session(self):
        self._connection = alive(self._connection) or self.connect()
        return self._connection

    def sql(self, query, *values):
        """Rows, as tuples, by the superuser; [] for a statement without any."""
        cursor = self._session().execute(query, values or None)
        return cursor.fetchall() if cursor.description else []

    def value(self, query, *values):
        return self.sql(query, *values)[0][0]

    def close(self):
        if self._connection is not None:
            self._connection.close()

    def conninfo(self, user="roundsman"):
        return self.server.conninfo(self.name, user)

    def populate(self, users=1000, items=100, orders=300):
        self.sql("TRUNCATE shop.users, shop.menu_items, shop.orders, shop.order_items RESTART IDENTITY")
        self.server.psql(self.name, "-v", f"users={users}", "-v", f"items={items}", "-v", f"orders={orders}",
                         "-f", TOP / "sql" / "shop-data.sql")

    # ---- the configuration ----

    def _path(self, name):
        self._files += 1
        return self.directory / f"{self._files}-{name}"

    def configure(self, text=None, jobs=None, name="roundsman.conf", **groups):
        """Writes a configuration file, which later calls use unless they are given another."""
        if text is None:
            whole = {
                "database": {"conninfo": self.conninfo()},
                "defaults": {"timezone": "UTC"},
            }
            for group, value in groups.items():
                whole[group] = {**whole.get(group, {}), **value} if isinstance(value, dict) else value
            whole["jobs"] = JOBS if jobs is None else jobs
            text = "".join(f"{key} = {render(value)};\n" for key, value in whole.items())
        path = self._path(name)
        path.write_text(text)
        self._config = path
        return path

    # ---- the program ----

    def command(self, *arguments, config=None):
        config = config or self._config or self.configure()
        return [*WRAPPER, str(BINARY), "-c", str(config), *map(str, arguments)]

    def environment(self, env=None, faketime=None):
        whole = {key: value for key, value in os.environ.items()
                 if not key.startswith("PG") and key not in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "JOURNAL_STREAM", "TZ")}
        whole.update(SANITIZERS, LC_ALL="C.UTF-8")
        if faketime is not None:
            libraries = list(pathlib.Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
            assert libraries, "libfaketime is not installed (tests/packages tests)"
            whole.update(LD_PRELOAD=str(libraries[0]), FAKETIME=faketime, FAKETIME_DONT_FAKE_MONOTONIC="1")
        whole.update(env or {})
        return {key: value for key, value in whole.items() if value is not None}

    def roundsman(self, *arguments, config=None, env=None, timeout=60, faketime=None, stdin=None):
        """Runs it to its end."""
        done = subprocess.run(self.command(*arguments, config=config), env=self.environment(env, faketime), input=stdin,
                              stdin=subprocess.DEVNULL if stdin is None else None, check=False, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout * PATIENCE)
        complain(done.stderr)
        return Result(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments, config=None, env=None, faketime=None):
        """Runs it in the background: the daemon when there are no arguments."""
        return Process(self.command(*arguments, config=config), self.environment(env, faketime), self._path("output"))

    def install(self, config=None):
        result = self.roundsman("--install", "-d", self.conninfo("postgres"), config=config)
        assert result.status == 0, result
        return result

    # ---- what the ledger and the shop say ----

    def _dictionaries(self, query, *values):
        with self._session().cursor(row_factory=psycopg.rows.dict_row) as cursor:
            return cursor.execute(query, values).fetchall()

    def runs(self, job=None):
        return self._dictionaries("SELECT job.name AS job, run.* FROM roundsman.run JOIN roundsman.job ON job.id = job_id"
                                  " WHERE %s::text IS NULL OR job.name = %s ORDER BY run.id", job, job)

    def lanes(self):
        return self._dictionaries("SELECT * FROM roundsman.lane ORDER BY run_id, lane")

    def leftovers(self):
        return self._dictionaries("SELECT * FROM roundsman.leftover ORDER BY run_id, key")

    def books(self):
        return Books(dict(self.sql("SELECT id, points FROM shop.users")),
                     dict(self.sql("SELECT id, stock FROM shop.menu_items")),
                     dict(self.sql("SELECT id, status FROM shop.orders")))

    def stale_orders(self, older_than="30 minutes", statuses=("PAYING",)):
        return [row[0] for row in self.sql("SELECT id FROM shop.orders WHERE status = ANY(%s)"
                                           " AND last_modified_at < now() - %s::interval ORDER BY id",
                                           list(statuses), older_than)]

    # ---- other sessions ----

    @contextlib.contextmanager
    def hold(self, query, *values):
        """An open transaction of another session that has run the query: row locks, a snapshot. Gives the connection."""
        with self.connect(autocommit=False) as connection:
            connection.execute(query, values or None)
            yield connection
            connection.rollback()

    def pace(self, seconds):
        self.sql("CREATE OR REPLACE FUNCTION public.pace(bigint) RETURNS boolean LANGUAGE plpgsql AS"
                 f" 'BEGIN PERFORM pg_sleep({seconds}); RETURN true; END'")

    def traffic(self, threads=2):
        return Traffic(self, threads)


def sweep():
    """Removes servers that a killed test session has left behind."""
    for directory in VAR.glob("tests-*"):
        number = directory.name.split("-")[1]
        if number.isdigit() and not pathlib.Path(f"/proc/{number}").exists():
            Server(directory).remove()


def new_server(label="", *settings):
    """A server of this session: its directory has our pid, so that sessions side by side do not meet."""
    VAR.mkdir(parents=True, exist_ok=True)
    return Server(VAR / f"tests-{os.getpid()}{label and '-' + label}").start(*settings)


__all__ = ["BINARY", "Books", "JOBS", "PATIENCE", "Process", "Raw", "Result", "Server", "Shop", "TOP", "Traffic", "WRAPPER",
           "YEARLY", "complain", "new_server", "render", "sweep", "wait_until"]
