# SPDX-License-Identifier: PostgreSQL
"""
The daemon in a terminal, on a real server: reloads, retries, overlap, and what it does while there is nothing to do.

What a clock that is set does to the timers is in the unit tests of agenda: nothing but the real clock makes the kernel
tell a process so.
"""

import datetime
import os
import pathlib
import re
import signal
import stat
import time

import pytest

from harness import JOBS, WRAPPER, YEARLY, wait_until

EVERY_SECOND = "* * * * * *"
DAILY = "0 0 * * *"


def points(**settings):
    return {"name": "points", "kind": "points", "schedule": YEARLY, "amount": 7, **settings}


def restock(**settings):
    return {"name": "restock", "kind": "restock", "schedule": YEARLY, "add": 1, **settings}


def slow(**settings):
    """A job whose run takes as long as Shop.pace() says, in many batches."""
    return points(where="public.pace(id)", batch_max=10, **settings)


def owe(shop, days=1):
    """The ledger has seen the job already, and owes it the last midnights."""
    shop.sql("INSERT INTO roundsman.job (name, kind, schedule, timezone, settled_through, first_seen)"
             " VALUES ('points', 'points', %s, 'UTC', date_trunc('day', now(), 'UTC') - %s * interval '1 day',"
             " now() - interval '30 days')", DAILY, days)


def reload(shop, daemon, jobs):
    """Puts these jobs into the file that the daemon has."""
    path = pathlib.Path(daemon.popen.args[daemon.popen.args.index("-c") + 1])
    before = daemon.log().count("Z reloaded ")
    path.write_text(shop.configure(jobs=jobs).read_text())
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: daemon.log().count("Z reloaded ") > before, what="the reload")


def rows(shop):
    """How far the lanes have come."""
    return shop.value("SELECT coalesce(sum(rows_done), 0) FROM roundsman.lane")


def under_way(shop, daemon):
    """Waits until a run has committed batches."""
    def look():
        assert daemon.popen.poll() is None, daemon.log()
        return rows(shop) > 0
    wait_until(look, what="the first batches")


def done(shop, job=None, count=1):
    wait_until(lambda: [run["state"] for run in shop.runs(job)].count("done") >= count, what=f"{count} runs done")


def expect(shop, expected):
    books = shop.books()
    assert books == expected, books.explain(expected)


# ---- Reload ----

def test_a_reload_applies_the_edited_job(shop):
    shop.configure(jobs=[points()])
    before = shop.books()
    with shop.start() as daemon:
        wait_until(lambda: shop.sql("SELECT 1 FROM roundsman.job"), what="the job's row")
        changed = datetime.datetime.now(datetime.timezone.utc)
        reload(shop, daemon, [points(schedule=EVERY_SECOND, amount=5, catch_up="all")])
        daemon.wait_for(r'points: the changed schedule takes effect: "\* \* \* \* \* \*" in UTC; nothing from before now')
        done(shop, count=2)
        # The amount alone: no change of the schedule, and so nothing is said of it.
        reload(shop, daemon, [points(schedule=EVERY_SECOND, amount=3, catch_up="all")])
        wait_until(lambda: any(run["params"]["amount"] == 3 and run["state"] == "done" for run in shop.runs()),
                   what="a run with the new amount")
        assert daemon.stop() == 0, daemon.log()
    assert daemon.log().count("takes effect") == 1
    runs = shop.runs()
    amounts = [run["params"]["amount"] for run in runs]
    assert amounts == sorted(amounts, reverse=True) and set(amounts) == {5, 3}
    assert all(run["due"] > changed and run["trigger"] == "schedule" for run in runs)
    dues = [run["due"] for run in runs]
    assert dues == [dues[0] + datetime.timedelta(seconds=n) for n in range(len(dues))]
    assert sum(shop.books().points.values()) == sum(before.points.values()) + sum(
        run["rows_done"] * run["params"]["amount"] for run in runs)


def test_jobs_are_added_and_removed_by_a_reload(shop):
    shop.pace(0.02)
    shop.configure(jobs=[slow(schedule=DAILY, catch_up="all")])
    owe(shop)
    expected = shop.books().with_points(7)
    with shop.start() as daemon:
        under_way(shop, daemon)
        # Removed in mid-run: interrupted, and nobody resumes it.
        reload(shop, daemon, [restock(schedule=EVERY_SECOND)])
        wait_until(lambda: shop.runs("points")[0]["state"] == "interrupted", what="it to be interrupted")
        done(shop, "restock", 2)
        (run,) = shop.runs("points")
        assert (run["state"], run["attempt"]) == ("interrupted", 1)
        # There again: resumed, and the other one is removed while it sleeps.
        shop.pace(0)
        reload(shop, daemon, [slow(schedule=DAILY, catch_up="all")])
        done(shop, "points")
        restocked = len(shop.runs("restock"))
        time.sleep(1.5)
        assert len(shop.runs("restock")) == restocked
        assert daemon.stop() == 0, daemon.log()
    (run,) = shop.runs("points")
    assert (run["attempt"], run["rows_done"]) == (2, 1000)
    assert shop.books().points == expected.points


def test_disabled_interrupts_and_blocks_until_enabled(shop):
    shop.pace(0.02)
    job = slow(schedule=DAILY, catch_up="all")
    shop.configure(jobs=[job])
    owe(shop)
    expected = shop.books().with_points(7)
    with shop.start() as daemon:
        under_way(shop, daemon)
        reload(shop, daemon, [{**job, "enabled": False}])
        wait_until(lambda: shop.runs()[0]["state"] == "interrupted", what="the run to be interrupted")
        daemon.wait_for("points: disabled")
        wait_until(lambda: not daemon.children(), what="the child's end")
        done_rows = rows(shop)
        assert 0 < done_rows < 1000
        # Not even by hand, nor by a daemon that has just started.
        result = shop.roundsman("--run-once", "points")
        assert result.status == 1 and "disabled" in result.err
        reload(shop, daemon, [{**job, "enabled": False, "amount": 8}])
        wait_until(lambda: not daemon.children(), what="the child's end")
        assert [(run["state"], run["attempt"]) for run in shop.runs()] == [("interrupted", 1)]
        assert rows(shop) == done_rows
        shop.pace(0)
        reload(shop, daemon, [job])
        done(shop)
        assert daemon.stop() == 0, daemon.log()
    (run,) = shop.runs()
    assert (run["attempt"], run["rows_done"]) == (2, 1000)
    expect(shop, expected)


# ---- A server that is not there, a run that takes too long, rows that are locked ----

def test_a_server_that_appears_later(own_shop):
    shop = own_shop
    shop.configure(jobs=[points(schedule=DAILY, catch_up="all", retry_delay="1s")])
    owe(shop, days=3)
    expected = shop.books().with_points(7).with_points(7).with_points(7)
    shop.close()
    shop.server.stop()
    with shop.start() as daemon:
        for delay in ("1s", "2s"):
            daemon.wait_for(f"warning: points: the child exited with status 1: .*; next attempt in {delay}\n")
        # One line for each attempt says what is the matter.
        assert len(re.findall("error: points: no connection to the database: .*\n", daemon.log())) == \
            daemon.log().count("next attempt in")
        shop.server.start()
        done(shop, count=3)
        wait_until(lambda: not daemon.children(), what="the child's end")
        assert daemon.stop() == 0, daemon.log()
    assert [(run["state"], run["attempt"], run["trigger"]) for run in shop.runs()] == [("done", 1, "catch_up")] * 3
    expect(shop, expected)


@pytest.mark.parametrize("how", ["restart", "crash"])
def test_a_server_that_restarts_in_mid_run(own_shop, how):
    shop = own_shop
    shop.pace(0.02)
    shop.configure(jobs=[slow(schedule=DAILY, catch_up="all", retry_delay="1s")])
    owe(shop)
    expected = shop.books().with_points(7)
    with shop.start() as daemon:
        under_way(shop, daemon)
        shop.close()
        if how == "crash":
            shop.server.crash()
        else:
            shop.server.stop()
        daemon.wait_for("warning: points: the child exited with status 1: .*; next attempt in 1s")
        shop.server.start()
        shop.pace(0)
        done(shop)
        assert daemon.stop() == 0, daemon.log()
    (run,) = shop.runs()
    assert (run["state"], run["rows_done"]) == ("done", 1000) and run["attempt"] >= 2
    expect(shop, expected)


def test_max_runtime_interrupts_and_the_run_is_resumed(shop):
    shop.pace(0.01)
    shop.configure(jobs=[slow(schedule=DAILY, catch_up="all", max_runtime="1s", retry_delay="1s")])
    owe(shop)
    expected = shop.books().with_points(7)
    with shop.start() as daemon:
        daemon.wait_for(r"warning: points: run \d+ has taken all of max_runtime \(1s\): asked to stop")
        daemon.wait_for(r"warning: points: the child exited with status 11: .*; next attempt in 1s")
        daemon.wait_for(r"(?s)all of max_runtime.*all of max_runtime")  # resumed, and it takes too long again
        shop.pace(0)
        done(shop)
        assert daemon.stop() == 0, daemon.log()
    (run,) = shop.runs()
    assert (run["state"], run["rows_done"]) == ("done", 1000) and run["attempt"] >= 3
    expect(shop, expected)


def test_leftovers_are_retried_by_a_timer_of_their_own(shop):
    """Nothing else falls due meanwhile."""
    shop.configure(jobs=[points(schedule=DAILY, catch_up="all", retry_delay="1s", lock_timeout="10ms")])
    owe(shop)
    expected = shop.books().with_points(7)
    with shop.hold("SELECT FROM shop.users WHERE id IN (7, 700) FOR UPDATE") as holder:
        with shop.start("-v", "-v") as daemon:
            wait_until(lambda: shop.runs() and shop.runs()[0]["state"] == "partial", what="a run with leftovers")
            wait_until(lambda: min(row["attempts"] for row in shop.leftovers()) >= 3, what="more attempts")
            assert shop.runs()[0]["state"] == "partial"
            first = shop.leftovers()
            assert {(row["key"], row["reason"], row["sqlstate"]) for row in first} == {
                ("7", "locked", "55P03"), ("700", "locked", "55P03")}
            holder.rollback()
            done(shop)
            wait_until(lambda: not daemon.children(), what="the child's end")
            assert daemon.stop() == 0, daemon.log()
    assert "done: 1000 rows changed; its last leftover is settled" in daemon.log()
    (run,) = shop.runs()
    assert (run["rows_done"], run["attempt"]) == (1000, 1) and shop.leftovers() == []
    expect(shop, expected)


# ---- Overlap, and two at once ----

def test_a_run_longer_than_its_period_never_overlaps(shop):
    shop.pace(0.02)  # about ten seconds: until we say otherwise
    before = shop.books()
    shop.configure(jobs=[slow(schedule=EVERY_SECOND)])
    with shop.start("-v", "-v") as daemon:
        daemon.wait_for("(?s)" + ".*".join(["due .*; it waits for the child at work to end"] * 2))
        assert len(daemon.children()) == 1 and [run["state"] for run in shop.runs()] == ["running"]
        shop.pace(0)
        done(shop, count=2)
        assert daemon.stop() == 0, daemon.log()
    runs = [run for run in shop.runs() if run["state"] == "done"]
    for left, right in zip(runs, runs[1:]):
        assert left["finished_at"] <= right["started_at"]
    # The one after it is the latest that fell due meanwhile; the others are recorded.
    assert runs[1]["due"] - runs[0]["due"] >= datetime.timedelta(seconds=2)
    ((reason, first, last),) = shop.sql("SELECT reason, due_from, due_through FROM roundsman.skip ORDER BY id LIMIT 1")
    assert reason == "catch_up is latest" and runs[0]["due"] < first <= last < runs[1]["due"]
    given = sum(shop.books().points.values()) - sum(before.points.values())
    assert given == 7 * sum(run["rows_done"] for run in shop.runs())


def test_two_jobs_of_one_instant_run_beside_each_other(shop):
    """Each is in mid-run, at the same occurrence, while the other one is."""
    shop.pace(0.05)
    shop.configure(jobs=[slow(schedule="@every 2s"),
                         restock(schedule="@every 2s", where="public.pace(id)", batch_max=5)])
    with shop.start() as daemon:
        wait_until(lambda: sorted((run["job"], run["state"]) for run in shop.runs()) == [
            ("points", "running"), ("restock", "running")], what="both to run")
        first, second = shop.runs()
        assert first["due"] == second["due"]
        assert len(daemon.children()) == 2
        shop.pace(0)
        done(shop, "points")
        done(shop, "restock")
        assert daemon.stop() == 0, daemon.log()


# ---- The parent ----

def sockets(pid):
    found = []
    for link in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += [int(link.name)] if stat.S_ISSOCK(link.stat().st_mode) else []
        except FileNotFoundError:
            pass
    return found


def test_the_parent_never_connects(shop):
    shop.pace(0.02)
    shop.configure(jobs=[slow(schedule=DAILY, catch_up="all")])
    owe(shop)
    with shop.start() as daemon:
        assert sockets(daemon.pid) == []
        under_way(shop, daemon)
        (child,) = daemon.children()
        assert len(sockets(child)) >= 2  # its control session and its lanes: so the probe sees connections
        assert sockets(daemon.pid) == []
        shop.pace(0)
        done(shop)
        wait_until(lambda: not daemon.children(), what="the child's end")
        assert sockets(daemon.pid) == []
        assert shop.value("SELECT count(*) FROM pg_stat_activity WHERE usename = 'roundsman'") == 0
        assert daemon.stop() == 0, daemon.log()


def switches(pid):
    """How often the process went to sleep of its own accord."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.M)[1])


def settled(pid):
    before = switches(pid)
    time.sleep(0.3)
    return switches(pid) == before


@pytest.mark.skipif(bool(WRAPPER), reason="a checker has threads of its own")
def test_an_idle_daemon_sleeps(shop):
    shop.configure(jobs=JOBS)
    with shop.start() as daemon:
        wait_until(lambda: shop.value("SELECT count(*) FROM roundsman.job") == len(JOBS) and not daemon.children(),
                   what="the books to be applied")
        wait_until(lambda: settled(daemon.pid), what="it to sleep")
        before = switches(daemon.pid)
        time.sleep(3)
        assert switches(daemon.pid) == before
        daemon.signal(signal.SIGHUP)  # the probe sees it wake up
        wait_until(lambda: switches(daemon.pid) > before, what="a wake-up")
        assert daemon.stop() == 0, daemon.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_reads_its_file(shop, number):
    """The file is a pipe, which holds the daemon where it reads."""
    path = shop.directory / "pipe"
    os.mkfifo(path)
    text = shop.configure().read_text()

    def opened():
        try:
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK) + 1
        except OSError:
            return 0  # nobody reads it yet

    with shop.start(config=path) as daemon:
        pipe = wait_until(opened, what="the daemon to open its file") - 1
        daemon.signal(number)
        os.write(pipe, text.encode())
        os.close(pipe)
        assert daemon.wait() == 0, daemon.log()
    assert f"stopping after {number.name}" in daemon.log()
