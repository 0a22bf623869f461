# SPDX-License-Identifier: PostgreSQL
"""What the benchmark's parts stand on: a private durable server, shops in it, live traffic, and one measurement.

The server is started by tests/server, without --fast: fsync and synchronous_commit are on. Its settings are the same
for whoever is measured. It never vacuums by itself; the parts vacuum where an autovacuum would have. Waits for locks
are read from the server's log: the roles of live traffic (contenders.sql) have a deadlock_timeout of 2 ms, after
which the log names the holder, and then how long the wait was. Everybody else has the server's deadlock_timeout.
"""

import collections
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import psycopg

BENCH = pathlib.Path(__file__).resolve().parent
TOP = BENCH.parent
BINARY = pathlib.Path(os.environ.get("ROUNDSMAN") or TOP / "build" / "roundsman").absolute()
VAR = pathlib.Path(os.environ.get("ROUNDSMAN_VAR") or TOP / "var").absolute()
UNSEEN = 2.0  # ms: waits shorter than this are not in the log

CLIENTS, RATE, PAYMENT_RATE = 4, 300, 20
AFTER = 0.2  # seconds: the end of a contender's sessions is felt, too, by live traffic

# Started from a small process of its own, because a child inherits the peak memory of who started it.
MEASURE = """
import json, os, sys, time
begin = time.time()
pid = os.fork()
if pid == 0:
    os.execv(sys.argv[2], sys.argv[2:])
status, usage = os.wait4(pid, 0)[1:]
end = time.time()
with open(sys.argv[1], "w") as out:
    json.dump({"begin": begin, "end": end, "status": os.waitstatus_to_exitcode(status),
               "peak_kib": usage.ru_maxrss}, out)
"""

ENVIRONMENT = {name: value for name, value in os.environ.items()
               if not name.startswith("PG") and name not in ("NOTIFY_SOCKET", "JOURNAL_STREAM", "TZ")}
ENVIRONMENT["LC_ALL"] = "C.UTF-8"


class Failure(Exception):
    """Something that makes the figures worthless."""


def memory():
    """(total, available) in MiB."""
    lines = dict(line.split(":") for line in pathlib.Path("/proc/meminfo").read_text().splitlines())
    return tuple(int(lines[name].split()[0]) // 1024 for name in ("MemTotal", "MemAvailable"))


def settings():
    """Those of the server, for all contenders."""
    buffers = min(4096, memory()[0] // 4)
    return {"shared_buffers": f"{buffers}MB", "max_wal_size": "8GB", "checkpoint_timeout": "1h", "autovacuum": "off",
            "log_checkpoints": "off", "log_connections": "on", "log_line_prefix": "%n %p %q%u@%d "}


def sweep():
    """Removes servers of runs that were killed."""
    for parent in (VAR, pathlib.Path("/dev/shm")):
        for directory in parent.glob("roundsman-bench-*"):
            if not pathlib.Path("/proc", directory.name.split("-")[2]).exists():
                subprocess.run([TOP / "tests" / "server", "remove", directory], check=False, stdin=subprocess.DEVNULL)
                shutil.rmtree(directory, ignore_errors=True)


class Server:
    """A private server on one kind of storage: "disk" or "tmpfs"."""

    def __init__(self, storage):
        self.storage = storage
        self.directory = (VAR if storage == "disk" else pathlib.Path("/dev/shm")) / f"roundsman-bench-{os.getpid()}"
        self.directory.parent.mkdir(parents=True, exist_ok=True)

    def _server(self, *arguments):
        done = subprocess.run([TOP / "tests" / "server", *map(str, arguments)], stdin=subprocess.DEVNULL, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise Failure(done.stdout)
        return done.stdout.strip()

    def __enter__(self):
        try:
            self._server("start", self.directory, *(f"{name}={value}" for name, value in settings().items()))
            self.socket = self._server("socket", self.directory)
            self.bin = pathlib.Path(self._server("bin"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self._server("remove", self.directory)
        shutil.rmtree(self.directory, ignore_errors=True)

    def conninfo(self, dbname, user):
        return f"host={self.socket} port=5432 dbname={dbname} user={user}"

    def connect(self, dbname="postgres", user="postgres", autocommit=True):
        return psycopg.connect(self.conninfo(dbname, user), autocommit=autocommit)

    def sql(self, dbname, *queries):
        """Runs them one by one; the rows of the last."""
        with self.connect(dbname) as connection:
            for query in queries:
                cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else None

    def psql(self, dbname, *files, **variables):
        command = [self.bin / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", self.conninfo(dbname, "postgres")]
        for name, value in variables.items():
            command += ["-v", f"{name}={value}"]
        for file in files:
            command += ["-f", file]
        self.run(command)

    def run(self, command, **more):
        done = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, check=False, text=True,
                              env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more)
        if done.returncode != 0:
            raise Failure(f"{command[0]}: {done.stdout[-3000:]}")
        return done.stdout

    # ---- shops ----

    def make(self, name, users, items=1000, orders=0, others=0, uuid=False, full_pages=False):
        """A shop of these sizes, with contenders and ledger, vacuumed."""
        self.sql("postgres", f'CREATE DATABASE "{name}"')
        self.psql(name, TOP / "sql" / "shop.sql")
        if full_pages:
            self.sql(name, "ALTER TABLE shop.users RESET (fillfactor)")
        self.psql(name, BENCH / "data.sql", users=users, items=items, orders=orders, others=others)
        if uuid:
            self._use_uuids(name)
        self.psql(name, TOP / "sql" / "index-last-modified-at.sql", TOP / "sql" / "role.sql", BENCH / "contenders.sql")
        config = self.configure(name)
        self.run([BINARY, "-c", config, "--install", "-d", self.conninfo(name, "postgres")])
        self.sql(name, "VACUUM (FREEZE, ANALYZE)")

    def _use_uuids(self, name):
        """Users get random-looking keys which can be worked out from their numbers, in a heap of another order."""
        self.sql(name,
                 "ALTER TABLE shop.orders DROP CONSTRAINT orders_user_id_fkey,"
                 " ALTER user_id TYPE uuid USING md5(user_id::text)::uuid",
                 "ALTER TABLE shop.users ALTER id DROP IDENTITY",
                 "ALTER TABLE shop.users ALTER id TYPE uuid USING md5(id::text)::uuid",
                 "ALTER TABLE shop.orders ADD FOREIGN KEY (user_id) REFERENCES shop.users")

    def settle(self, name, periods=3):
        """Brings the users to the state that periods of a round leave behind: nobody is measured on virgin pages."""
        for _ in range(periods):
            self.sql(name, "UPDATE shop.users SET points = points + 1, last_modified_at = now()", "VACUUM shop.users")
        self.sql(name, "VACUUM (FREEZE, ANALYZE)")

    def drop(self, name):
        self.sql("postgres", f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    @contextlib.contextmanager
    def copy(self, template, name="bench"):
        """A fresh copy of a shop, file by file, all of it in shared_buffers and nothing of it dirty."""
        with self.connect() as connection:
            strategy = " STRATEGY file_copy" if connection.info.server_version >= 150000 else ""
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"{strategy}')
        self.warm(name)
        yield name
        self.drop(name)

    def warm(self, name):
        self.sql(name, "SELECT pg_prewarm(oid) FROM pg_class WHERE relkind IN ('r', 'i')"
                 " AND relnamespace IN ('shop'::regnamespace, 'roundsman'::regnamespace)", "CHECKPOINT")

    # ---- roundsman ----

    def configure(self, name, pace="full"):
        """A configuration file of two jobs on this database."""
        text = f"""database = {{ conninfo = "{self.conninfo(name, 'roundsman')}"; }};
jobs = (
  {{ name = "points"; kind = "points"; schedule = "@yearly"; pace = "{pace}"; amount = 1; }},
  {{ name = "cancel"; kind = "cancel"; schedule = "@yearly"; pace = "{pace}"; older_than = "30m"; }}
);
"""
        path = self.directory / f"{name}.conf"
        path.write_text(text)
        return path

    def roundsman(self, name, job, pace="full", expect=(0,)):
        """Makes a round. Its record: seconds from the start of the process to its end, peak memory, rows."""
        out = self.directory / "measured"
        said = self.run([sys.executable, "-I", "-S", "-c", MEASURE, out, BINARY, "-c", self.configure(name, pace),
                         "--run-once", job])
        measured = json.loads(out.read_text())
        if measured["status"] not in expect:
            raise Failure(f"--run-once {job} ended with status {measured['status']}:\n{said}")
        time.sleep(AFTER)  # what is asked here is not the contender's
        rows, leftovers = self.sql(name, "SELECT rows_done, (SELECT count(*) FROM roundsman.leftover)"
                                   " FROM roundsman.run ORDER BY id DESC LIMIT 1")[0]
        return {"begin": measured["begin"], "end": measured["end"], "peak_kib": measured["peak_kib"],
                "status": measured["status"], "rows": rows, "leftovers": leftovers}


class Traffic:
    """pgbench in the background, with a log of every transaction."""

    def __init__(self, server, dbname, script, seed, user="live", clients=CLIENTS, rate=RATE, **variables):
        self.prefix = server.directory / f"traffic-{user}"
        self.out = open(server.directory / f"traffic-{user}.out", "w+", encoding="utf-8")
        self._clear()
        command = [server.bin / "pgbench", "-n", "-h", server.socket, "-U", user, "-c", clients, "-R", rate,
                   "-T", 36000, "-f", script, "-l", f"--log-prefix={self.prefix}", f"--random-seed={seed}"]
        for name, value in variables.items():
            command += ["-D", f"{name}={value}"]
        self.popen = subprocess.Popen([*map(str, command), dbname], stdin=subprocess.DEVNULL, stdout=self.out,
                                      stderr=subprocess.STDOUT, env=ENVIRONMENT)

    def _clear(self):
        for path in self.prefix.parent.glob(self.prefix.name + ".[0-9]*"):
            path.unlink()

    def stop(self):
        """Lets the transactions under way end. All transactions: (begin, end, ms or None where it failed)."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGALRM)  # what ends it when its time (-T) is over
        if self.popen.wait(120) != 0:
            self.out.seek(0)
            raise Failure(f"live traffic broke off: {self.out.read()[-3000:]}")
        self.out.close()
        found = []
        for path in self.prefix.parent.glob(self.prefix.name + ".[0-9]*"):
            for line in path.read_text().splitlines():
                fields = line.split()
                end = int(fields[4]) + int(fields[5]) / 1e6
                if fields[2].isdigit():
                    found.append((end - int(fields[2]) / 1e6, end, int(fields[2]) / 1000))
                else:
                    found.append((end, end, None))
        self._clear()
        return found

    def kill(self):
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()
        self.out.close()


def latencies(transactions, begin, end):
    """Of those that were under way between two moments. pgbench counts from when a transaction should have begun."""
    inside = [entry for entry in transactions if entry[0] <= end and entry[1] >= begin]
    took = sorted(ms for _, _, ms in inside if ms is not None)
    if not took:
        return {"n": 0, "failed": len(inside), "p50": None, "p99": None, "max": None}
    return {"n": len(took), "failed": len(inside) - len(took), "p50": took[(len(took) - 1) // 2],
            "p99": took[min(len(took) - 1, int(len(took) * 0.99))], "max": took[-1]}


LINE = re.compile(r"^(\d+\.\d+) (\d+) (?:\S+@\S+ )?(LOG|DETAIL): +(.*)$")
CONNECTED = re.compile(r"connection authorized: user=(\S+)")
WAITS = re.compile(r"process (\d+) still waiting for .* after ([\d.]+) ms")
ACQUIRED = re.compile(r"process (\d+) acquired .* after ([\d.]+) ms")
HOLDERS = re.compile(r"Process(?:es)? holding the lock: ([\d, ]+)\.")
COMMIT = re.compile(r"duration: ([\d.]+) ms  statement: COMMIT")
Wait = collections.namedtuple("Wait", "begin end pid holders")


def read_log(path, offset):
    """What the log has from there on: users by pid, live traffic's waits for locks, its commits (end, ms)."""
    users, waits, commits, waiting = {}, [], [], {}
    with open(path, encoding="utf-8", errors="replace") as log:
        for line in log:  # from the beginning: somebody may have connected earlier
            entry = LINE.match(line)
            if not entry:
                continue
            moment, pid, text = float(entry[1]), int(entry[2]), entry[4]
            if found := CONNECTED.match(text):
                users[pid] = found[1]
            elif found := WAITS.match(text):
                waiting[pid] = moment, float(found[2]), set()
            elif (found := HOLDERS.match(text)) and pid in waiting:
                waiting[pid][2].update(int(number) for number in found[1].split(","))
            elif (found := ACQUIRED.match(text)) and pid in waiting:
                holders = waiting.pop(pid)[2]
                if moment >= offset:
                    waits.append(Wait(moment - float(found[2]) / 1000, moment, pid, holders))
            elif (found := COMMIT.match(text)) and moment >= offset:
                commits.append((moment, float(found[1])))
    return users, waits, commits


def waits_for(contenders, users, waits):
    """The waits that somebody of these roles made others endure, also through somebody who waited himself."""
    ours = set()
    while True:
        more = {wait for wait in map(_frozen, waits) if wait not in ours and any(
            users.get(pid) in contenders or any(other.pid == pid and other.begin < wait.end and wait.begin < other.end
                                                for other in ours) for pid in wait.holders)}
        if not more:
            return ours
        ours |= more


def _frozen(wait):
    return wait._replace(holders=frozenset(wait.holders))


def longest(waits):
    return max([(wait.end - wait.begin) * 1000 for wait in waits], default=UNSEEN)


def under_traffic(server, name, work, seed, users, items=1000, idle=4, script=None, candidates=0):
    """Measures work() beside live traffic (and payments of that many candidate orders), and what that noticed of it."""
    log = server.directory / "log"
    traffic = [Traffic(server, name, script or BENCH / "traffic.sql", seed, users=users, items=items)]
    try:
        if candidates:
            traffic.append(Traffic(server, name, BENCH / "approve.sql", seed, user="payments", clients=2,
                                   rate=PAYMENT_RATE, candidates=candidates))
        time.sleep(1)
        quiet = time.time()
        time.sleep(idle)
        record = work()
        time.sleep(AFTER)
        transactions = [entry.stop() for entry in traffic]
    finally:
        for entry in traffic:
            entry.kill()
    begin, end = record["begin"], record["end"]
    user_of, waits, commits = read_log(log, begin)
    ours = waits_for({"roundsman", "contender"}, user_of, waits)
    record.update(live=latencies(transactions[0], begin, end + AFTER), idle=latencies(transactions[0], quiet, begin - 0.05),
                  lock_waits=len(ours), lock_wait_ms=longest(wait for wait in ours if user_of.get(wait.pid) == "live"),
                  flush_ms=max([ms for moment, ms in commits if moment - ms / 1000 <= end], default=0.0))
    if candidates:
        record.update(payments=latencies(transactions[1], begin, end),
                      payment_wait_ms=longest(wait for wait in ours if user_of.get(wait.pid) == "payments"))
    return record


def timed(function, *arguments):
    """A record of how long a contender took. It returns how many rows it did."""
    begin = time.time()
    rows = function(*arguments)
    return {"begin": begin, "end": time.time(), "rows": rows}
