# SPDX-License-Identifier: PostgreSQL
"""The unit as it is installed, hardening and all, under a real systemd (tests/systemd); one boot for all."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest

from harness import BINARY, PATIENCE, TOP, WRAPPER, YEARLY, complain, wait_until

UNIT = "roundsman.service"
DAILY = "0 0 * * *"

pytestmark = [pytest.mark.skipif(bool(WRAPPER), reason="the unit runs the program as it is"),
              pytest.mark.xdist_group("machine")]  # of pytest-xdist: one machine for all of them


def run(*command, check=True):
    done = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, timeout=60)
    assert not check or done.returncode == 0, f"{command}: {done.stdout}"
    return done


class Machine:
    """A booted systemd with the program installed in it."""

    def __init__(self, directory, server):
        self.directory = directory / "machine"
        self.directory.mkdir()
        tree = self.install(directory / "tree")
        self.boot = subprocess.Popen([TOP / "tests" / "systemd", "boot", self.directory, "--copy", tree,
                                      "--bind", f"{server.socket}:/run/postgresql"],
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if self.boot.stdout.readline() != "ready\n":
            message = self.boot.communicate()[1]
            if self.boot.returncode == 77:
                pytest.skip(message.strip())
            raise AssertionError(message)
        self.root = pathlib.Path(f"/proc/{(self.directory / 'pid').read_text().strip()}/root")
        self.config = pathlib.Path(re.search(r"default (\S+)\)", run(BINARY, "--help").stdout)[1])
        self.inside("install", "-d", "-m755", self.config.parent)
        os.chmod(server.socket, 0o755)  # whatever our umask is
        self.inside("systemd-sysusers", "roundsman.conf")

    def install(self, tree):
        """As make install, which might build something anew; the unit goes where systemd looks, whatever the prefix."""
        unit = BINARY.parent / "etc" / UNIT
        program = re.search(r"^ExecStart=/(\S+)", unit.read_text(), re.M)[1]
        for source, target in ((BINARY, program), (unit, f"etc/systemd/system/{UNIT}"),
                               (TOP / "etc/sysusers.d/roundsman.conf", "etc/sysusers.d/roundsman.conf")):
            (tree / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, tree / target)
        return tree

    def shut_down(self):
        self.boot.communicate("")
        assert self.boot.returncode == 0

    def path(self, path):
        return self.root / str(path).lstrip("/")

    def inside(self, *command, check=True):
        return run(TOP / "tests" / "systemd", "in", self.directory, *command, check=check)


@pytest.fixture(scope="module")
def machine(server, tmp_path_factory):
    if os.geteuid() != 0:
        pytest.skip("a systemd of one's own needs root")
    machine = Machine(tmp_path_factory.mktemp("unit"), server)
    yield machine
    machine.shut_down()


class Unit:
    """The unit, for one test: with a shop of its own, and stopped when it begins and ends."""

    def __init__(self, machine, shop):
        self.machine, self.shop = machine, shop
        self.since = f"@{time.time():.6f}"

    def configure(self, *jobs):
        """As after make install and createuser roundsman: its user's name is the role's."""
        path = self.shop.configure(jobs=jobs, database={"conninfo": f"host=/run/postgresql dbname={self.shop.name}"})
        self.write(path.read_text())

    def write(self, text):
        path = self.machine.path(self.machine.config)
        path.write_text(text)
        path.chmod(0o644)

    def set(self, *lines):
        """A drop-in, for shorter times."""
        # LeakSanitizer, where the program has it, traces its own process, which the unit forbids.
        lines = ["RestartSec=100ms", "Environment=ASAN_OPTIONS=detect_leaks=0", *lines]
        path = self.machine.path(f"/run/systemd/system/{UNIT}.d/tests.conf")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("[Service]\n" + "\n".join(lines) + "\n")
        self.ctl("daemon-reload")

    def ctl(self, *arguments, check=True):
        return self.machine.inside("systemctl", *arguments, check=check)

    def __call__(self, verb, check=True):
        return self.ctl(verb, UNIT, check=check)

    def show(self, name):
        return self.ctl("show", "-P", name, UNIT).stdout.strip()

    def pid(self):
        """The daemon's, of the host; 0: there is none."""
        return next((pid for pid in self.processes() if int(field(pid, "PPid")) == int(
            (self.machine.directory / "pid").read_text())), 0)

    def processes(self, name=UNIT):
        """All of the unit's cgroup, of the host."""
        name = self.ctl("show", "-P", "ControlGroup", name).stdout.strip()
        path = self.machine.path(f"/sys/fs/cgroup{name}/cgroup.procs")
        try:
            return [int(line) for line in path.read_text().split()] if name else []
        except (FileNotFoundError, OSError):
            return []

    def journal(self):
        out = self.machine.inside("journalctl", "-u", UNIT, "--since", self.since, "-o", "json").stdout
        return [json.loads(line) for line in out.splitlines() if line.startswith("{")]

    def log(self):
        return "\n".join(str(entry.get("MESSAGE")) for entry in self.journal())

    def wait_log(self, pattern):
        try:
            return wait_until(lambda: re.search(pattern, self.log()), what=pattern)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None

    def done(self):
        wait_until(lambda: any(run["state"] == "done" for run in self.shop.runs()), what="the run to be done")


def field(pid, name):
    return re.search(rf"^{name}:\s+(.*)$", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M)[1].strip()


@pytest.fixture
def unit(machine, shop):
    unit = Unit(machine, shop)
    unit.set()
    yield unit
    unit("stop", check=False)
    unit("reset-failed", check=False)
    assert unit.processes() == []
    complain(unit.log())


def points(**settings):
    return {"name": "points", "kind": "points", "schedule": YEARLY, "amount": 7, **settings}


def slow(shop, seconds=0.02):
    """A job that owes a run, which takes so long a row."""
    shop.pace(seconds)
    shop.sql("INSERT INTO roundsman.job (name, kind, schedule, timezone, settled_through, first_seen)"
             " VALUES ('points', 'points', %s, 'UTC', date_trunc('day', now(), 'UTC') - interval '1 day', now())",
             DAILY)
    return points(schedule=DAILY, catch_up="all", where="public.pace(id)", batch_max=10)


def under_way(shop):
    wait_until(lambda: shop.value("SELECT coalesce(sum(rows_done), 0) FROM roundsman.lane") > 0, what="batches")


def expect(shop, expected, attempts):
    books = shop.books()
    assert books == expected, books.explain(expected)
    assert [(run["state"], run["rows_done"], run["attempt"]) for run in shop.runs()] == [("done", 1000, attempts)]


def test_nothing_to_object_to(machine):
    done = machine.inside("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", UNIT, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_job_runs_and_its_lines_are_in_the_journal(unit):
    expected = unit.shop.books().with_points(7)
    unit.configure(slow(unit.shop, 0), {"name": "restock", "kind": "restock", "schedule": YEARLY, "add": 1})
    unit("start")  # ends when READY=1 was said
    assert (unit.show("ActiveState"), unit.show("SubState")) == ("active", "running")
    pid = unit.pid()
    assert field(pid, "NoNewPrivs") == "1" and field(pid, "Seccomp") == "2" and int(field(pid, "CapBnd"), 16) == 0
    (user,) = re.findall(r"^roundsman:x:(\d+):", unit.machine.path("/etc/passwd").read_text(), re.M)
    assert set(field(pid, "Uid").split()) == {user} != {"0"}
    unit.done()
    # The child's last words are found by the unit, although it has gone.
    entry = wait_until(lambda: next((line for line in unit.journal() if "1000 rows changed" in line["MESSAGE"]), None),
                       what="the outcome's line")
    (made,) = unit.shop.runs()
    assert entry["ROUNDSMAN_JOB"] == "points" and entry["ROUNDSMAN_RUN"] == str(made["id"])
    assert entry["ROUNDSMAN_OCCURRENCE"] == made["due"].strftime("%Y-%m-%dT%H:%M:%SZ")
    assert entry["PRIORITY"] == "5" and entry["_TRANSPORT"] == "journal" and entry["SYSLOG_IDENTIFIER"] == "roundsman"
    started = next(entry for entry in unit.journal() if " started: 2 jobs of" in entry["MESSAGE"])
    assert "ROUNDSMAN_JOB" not in started and started["_PID"] != entry["_PID"]
    expect(unit.shop, expected, attempts=1)


def test_the_last_words_of_a_child_are_found_by_the_unit(unit):
    """The journal looks up whose a line is when it reads it, and it is busy when the child, which then ends, says it."""
    unit.configure(points(schedule="* * * * * *"))
    unit("start")
    (journal,) = unit.processes("systemd-journald.service")
    daemon = unit.pid()

    def found():
        known = len(unit.shop.runs())
        os.kill(journal, signal.SIGSTOP)
        try:
            run = wait_until(lambda: [run for run in unit.shop.runs()[known:] if run["reported_at"]], what="a round")[0]
            end = time.monotonic() + 0.02  # a fifth of how long the child waits
            while time.monotonic() < end and pathlib.Path(f"/proc/{daemon}/task/{daemon}/children").read_text():
                time.sleep(0.001)
        finally:
            os.kill(journal, signal.SIGCONT)
        unit.machine.inside("journalctl", "--sync")
        return f"points run {run['id']} due" in unit.log()

    assert any(found() for _ in range(5))  # a busy machine may take too long once


def test_status_text(unit):
    unit.configure(slow(unit.shop, 0.02), {"name": "restock", "kind": "restock", "schedule": "0 0 1 1 *", "add": 1})
    unit("start")
    wait_until(lambda: re.fullmatch(r"2 jobs; points running \(run \d+, [1-9]\d? %\); next points (\S+T)?00:00:00Z",
                                    unit.show("StatusText")), what="a running job's status")
    unit.shop.pace(0)
    wait_until(lambda: re.fullmatch(r"2 jobs; next points (\S+T)?00:00:00Z", unit.show("StatusText")), what="idleness")


def test_reload(unit):
    unit.configure(points())
    unit("start")
    pid = unit.pid()
    unit.configure(points(schedule="* * * * * *"), points(name="more"))
    unit("reload")
    unit.wait_log("points: the changed schedule takes effect")
    unit.done()
    assert "2 jobs" in unit.show("StatusText")
    unit.write("jobs = ( { name = \"x\"; amuont = 1; } );\n")
    assert unit("reload", check=False).returncode != 0
    # All errors are in the journal, and the daemon goes on with what it has.
    unit.wait_log(re.escape(str(unit.machine.config)) + r":1: .*amuont")
    assert (unit.show("ActiveState"), unit.pid()) == ("active", pid)
    runs = len(unit.shop.runs("points"))
    wait_until(lambda: len(unit.shop.runs("points")) > runs + 1, what="the old configuration's rounds")
    assert unit.log().count("reloaded ") == 1


def test_stop_in_mid_run_and_start_again(unit):
    shop = unit.shop
    expected = shop.books().with_points(7)
    unit.configure(slow(shop))
    unit("start")
    under_way(shop)
    begun = time.monotonic()
    unit("stop")
    assert time.monotonic() - begun < 10 * PATIENCE  # it did not come to SIGKILL
    assert (unit.show("ActiveState"), unit.show("Result"), unit.show("ExecMainStatus")) == ("inactive", "success", "0")
    assert unit.processes() == []
    (made,) = shop.runs()
    assert made["state"] == "interrupted" and 0 < made["rows_done"] < 1000
    shop.pace(0)
    unit("start")
    unit.done()
    expect(shop, expected, attempts=2)


def test_a_broken_file_at_the_start_is_not_tried_again(unit):
    unit.write("jobs = ( { name = \"x\"; amuont = 1; } );\n")
    assert unit("start", check=False).returncode != 0
    wait_until(lambda: unit.show("ActiveState") == "failed", what="the unit to fail")
    time.sleep(0.5)  # five times RestartSec
    assert (unit.show("ActiveState"), unit.show("ExecMainStatus"), unit.show("NRestarts")) == ("failed", "6", "0")
    unit.wait_log(r":1: .*amuont")


def test_kill_leaves_no_child_and_is_followed_by_a_restart(unit):
    shop = unit.shop
    expected = shop.books().with_points(7)
    # Longer than it takes to look: the cgroup is empty until then.
    unit.set("RestartSec=2s")
    unit.configure(slow(shop))
    unit("start")
    under_way(shop)
    before = unit.processes()
    assert len(before) == 2 and unit.pid() in before
    os.kill(unit.pid(), signal.SIGKILL)
    wait_until(lambda: unit.show("SubState") == "auto-restart", what="systemd to notice")
    assert unit.processes() == [] and not any(pathlib.Path(f"/proc/{pid}").exists() for pid in before)
    shop.pace(0)
    wait_until(lambda: unit.show("ActiveState") == "active" and unit.show("NRestarts") == "1", what="the restart")
    unit.done()
    expect(shop, expected, attempts=2)


def test_a_daemon_that_hangs_is_restarted(unit):
    unit.set("WatchdogSec=1s")
    unit.configure(points())
    unit("start")
    pid = unit.pid()
    time.sleep(2)  # the watchdog is content
    assert (unit.pid(), unit.show("NRestarts")) == (pid, "0")
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: unit.show("NRestarts") == "1" and unit.show("ActiveState") == "active", what="the restart")
    assert unit.pid() not in (0, pid)
    unit.wait_log("Watchdog timeout")
