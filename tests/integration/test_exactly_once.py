# SPDX-License-Identifier: PostgreSQL
"""Exactly once, and with frozen parameters: whatever is killed, cut off, stopped or run twice, and wherever.

Nothing here hopes for a moment: a Hold keeps a transaction of the program at one row until the test lets go, and a Proxy
sees each transaction that the program sends and cuts its connection, or kills it, at exactly that one.
"""

import contextlib
import datetime
import os
import signal
import threading
import time

import pytest

from harness import PATIENCE, WRAPPER, wait_until
from wire import Proxy

DAILY = "0 0 * * *"
POINTS = {"name": "daily-points", "kind": "points", "schedule": DAILY, "amount": 7, "catch_up": "all"}
RESTOCK = {"name": "restock", "kind": "restock", "schedule": DAILY, "add": 10, "up_to": 100}
CANCEL = {"name": "cancel-unpaid", "kind": "cancel", "schedule": DAILY, "older_than": "30m"}
JOBS = {"points": POINTS, "restock": RESTOCK, "cancel": CANCEL}
TABLES = {"points": "users", "restock": "menu_items", "cancel": "orders"}


def configure(shop, kind="points", lanes=3, batch_max=100, more=None, **groups):
    """One job, in many small batches, and all lanes at work."""
    return shop.configure(jobs=[{**JOBS[kind], "pace": "full", "lanes": lanes, "batch_max": batch_max, **(more or {})}], **groups)


def grow(shop):
    """Users enough for several lanes."""
    shop.sql("INSERT INTO shop.users (name, points) SELECT 'user ' || n, n FROM generate_series(1001, 3000) AS n")
    shop.sql("ANALYZE shop.users")


def once(shop, kind="points", *arguments, status=0, config=None):
    result = shop.roundsman("--run-once", JOBS[kind]["name"], *arguments, config=config)
    assert result.status == status, result
    return result


def expected_books(shop, kind):
    """What the books must be after one round."""
    books = shop.books()
    if kind == "points":
        return books.with_points(7), len(books.points)
    if kind == "restock":
        after = books.with_restock(10, up_to=100)
        return after, sum(1 for item in books.stock if books.stock[item] != after.stock[item])
    stale = shop.stale_orders()
    return books.with_canceled(shop, stale), len(stale)


def check_books(shop, expected):
    books = shop.books()
    assert books == expected, books.explain(expected)


def check_run(run, state="done", rows=None, attempt=None):
    assert run["state"] == state, run
    if rows is not None:
        assert run["rows_done"] == rows, run
    if attempt is not None:
        assert run["attempt"] == attempt, run


def only_run(shop, state="done", rows=None, attempt=None):
    (run,) = shop.runs()
    check_run(run, state, rows, attempt)
    assert state != "done" or sum(lane["rows_done"] for lane in shop.lanes()) == run["rows_done"]
    return run


def ledger(shop):
    """Every row of it, to be compared."""
    return [shop.sql(f"SELECT * FROM roundsman.{table} AS t ORDER BY t::text")
            for table in ("job", "run", "lane", "leftover", "skip")]


def today():
    return datetime.datetime.now(datetime.timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)


def owe(shop, kind="points", days=1):
    """The ledger has seen the job already, and owes it the last days: that many midnights."""
    job = JOBS[kind]
    shop.sql("INSERT INTO roundsman.job (name, kind, schedule, timezone, settled_through, first_seen)"
             " VALUES (%s, %s, %s, 'UTC', %s, now() - interval '30 days')",
             job["name"], kind, job["schedule"], today() - datetime.timedelta(days=days))


def sessions(shop):
    return shop.sql("SELECT pid, state, wait_event FROM pg_stat_activity WHERE datname = current_database()"
                    " AND usename = 'roundsman'")


def lock_waits(shop):
    return shop.sql("SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND usename = 'roundsman'"
                    " AND wait_event_type = 'Lock'")


def wait_gone(shop):
    """The server has noticed that the killed process is no more, and what it had in flight is committed or not."""
    wait_until(lambda: not sessions(shop), what="the end of the killed process's sessions")


def wait_idle(shop):
    """All that was sent has been executed, and nobody (a stopped process) sends more."""
    wait_until(lambda: all(state == "idle" for _, state, _ in sessions(shop)), what="idle sessions")


class Hold:
    """Whoever changes this row waits inside its transaction until release()."""

    count = 0

    def __init__(self, shop, table, condition, event="UPDATE", timing="BEFORE"):
        Hold.count += 1
        self.shop, self.number = shop, Hold.count
        self.keeper = shop.connect()
        self.keeper.execute("SELECT pg_advisory_lock(4711, %s)", [self.number])
        # Not by waiting for the lock, which the program's lock_timeout would end.
        shop.sql(f"""CREATE FUNCTION public.hold{self.number}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     WHILE NOT pg_try_advisory_xact_lock_shared(4711, {self.number}) LOOP PERFORM pg_sleep(0.005); END LOOP;
                     RETURN NEW; END $$""")
        shop.sql(f"CREATE TRIGGER hold{self.number} {timing} {event} ON {table} FOR EACH ROW WHEN ({condition})"
                 f" EXECUTE FUNCTION public.hold{self.number}()")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.keeper.close()

    def reached(self, process):
        """Waits until a transaction is held here; gives its session's pid."""
        def look():
            assert process.popen.poll() is None, f"it ended:\n{process.log()}"
            return [pid for pid, _, event in sessions(self.shop) if event == "PgSleep"]
        return wait_until(look, what="a transaction at the row")[0]

    def release(self):
        self.keeper.execute("SELECT pg_advisory_unlock(4711, %s)", [self.number])


def hold_row(shop, kind, share=0.5):
    """Holds the row in the middle (or another share) of what the job changes."""
    table = f"shop.{TABLES[kind]}"
    if kind == "cancel":
        # In the order in which they are canceled.
        keys = [row[0] for row in shop.sql("SELECT id FROM shop.orders WHERE status = 'PAYING' AND last_modified_at <"
                                           " now() - interval '30 minutes' ORDER BY last_modified_at, id")]
    else:
        keys = [row[0] for row in shop.sql(f"SELECT id FROM {table} ORDER BY id")]
        if kind == "restock":
            keys = [row[0] for row in shop.sql("SELECT id FROM shop.menu_items WHERE stock < 100 ORDER BY id")]
    return Hold(shop, table, f"OLD.id = {keys[min(int(len(keys) * share), len(keys) - 1)]}")


# ---- Killed in mid-flight ----

@pytest.mark.parametrize("kind, share, due", [("points", 0.05, False), ("points", 0.5, True), ("points", 1, False),
                                              ("restock", 0.5, True), ("cancel", 0.5, False), ("cancel", 0.5, True)])
def test_kill_in_mid_flight(shop, kind, share, due):
    """The process is killed with a transaction in flight, which the server then commits on its own."""
    grow(shop)
    configure(shop, kind, batch_max=10 if kind == "restock" else 100)
    arguments = ["--due", today().isoformat()] if due else []
    expected, rows = expected_books(shop, kind)
    with hold_row(shop, kind, share) as hold, shop.start("--run-once", JOBS[kind]["name"], *arguments) as process:
        hold.reached(process)
        process.signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        hold.release()
    wait_gone(shop)
    only_run(shop, "running", attempt=1)
    once(shop, kind, *arguments)
    check_books(shop, expected)
    run = only_run(shop, "done", rows, attempt=2)
    assert (run["due"] is not None) == due
    if due:
        once(shop, kind, *arguments)
        check_books(shop, expected)
        only_run(shop, "done", rows, attempt=2)


@pytest.mark.parametrize("lanes", [1, 2])
def test_orders_of_the_cursors_own_instant_are_not_passed_over(shop, lanes):
    """Killed between two pages of orders that are equally old, which may be the lane's end: the cursor is in their middle."""
    shop.sql("UPDATE shop.orders SET status = 'PAID'")
    shop.sql("INSERT INTO shop.orders (user_id, status, points_spent, last_modified_at) SELECT 1 + n %% 9, 'PAYING', 1,"
             " now() - CASE WHEN n <= %s THEN interval '2 hours' ELSE interval '1 hour' END"
             " FROM generate_series(1, %s) AS n", 1400 * (lanes - 1), 1400 * lanes)
    configure(shop, "cancel", lanes=lanes)
    expected, rows = expected_books(shop, "cancel")
    with hold_row(shop, "cancel", 0.9) as hold, shop.start("--run-once", "cancel-unpaid") as process:
        hold.reached(process)
        process.signal(signal.SIGKILL)
        process.wait()
        hold.release()
    wait_gone(shop)
    lane = shop.lanes()[0]
    assert lane["cursor"] and lane["cursor"] != lane["range_to"]
    once(shop, "cancel")
    check_books(shop, expected)
    only_run(shop, "done", rows, attempt=2)


@pytest.mark.parametrize("kind", ["points", "restock", "cancel"])
def test_the_session_is_terminated_in_mid_flight(shop, kind):
    """The transaction in flight is rolled back by the server, and the run fails; the next one finishes it."""
    grow(shop)
    configure(shop, kind, batch_max=10 if kind == "restock" else 100)
    expected, rows = expected_books(shop, kind)
    with hold_row(shop, kind) as hold, shop.start("--run-once", JOBS[kind]["name"]) as process:
        shop.sql("SELECT pg_terminate_backend(%s)", hold.reached(process))
        assert process.wait() == 1, process.log()
        hold.release()
    wait_gone(shop)
    run = only_run(shop, "failed")
    assert 0 < run["rows_done"] < rows and run["error"]
    once(shop, kind)
    check_books(shop, expected)
    only_run(shop, "done", rows, attempt=2)


def test_a_run_without_its_lock_stops(shop):
    """The session that holds the job's lock ends, the lanes' sessions do not: nothing more is begun."""
    grow(shop)
    configure(shop, lanes=1)
    expected, rows = expected_books(shop, "points")
    with hold_row(shop, "points", 0.1) as hold, shop.start("--run-once", "daily-points") as process:
        hold.reached(process)
        shop.sql("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1919184238")
        process.wait_for("connection to the server was lost|terminating connection")
        hold.release()
        assert process.wait() == 1, process.log()
    wait_gone(shop)
    only_run(shop, "running", attempt=1)
    (lane,) = shop.lanes()
    assert 0 < lane["rows_done"] <= 400 and int(lane["cursor"]) <= 400
    once(shop)
    check_books(shop, expected)
    only_run(shop, "done", rows, attempt=2)


def test_the_server_crashes_in_mid_flight(own_shop):
    shop = own_shop
    grow(shop)
    for kind in ("points", "cancel"):
        configure(shop, kind)
        expected, rows = expected_books(shop, kind)
        with hold_row(shop, kind) as hold, shop.start("--run-once", JOBS[kind]["name"]) as process:
            hold.reached(process)
            shop.server.crash()
            assert process.wait() == 1, process.log()
            shop.close()
            shop.server.start()
        # The lane's session may die a moment before the one that can still tell the ledger so.
        assert shop.runs()[-1]["state"] in ("running", "failed")
        once(shop, kind)
        check_books(shop, expected)
        check_run(shop.runs()[-1], "done", rows, attempt=2)


def test_a_killed_child_is_followed_by_another(shop):
    """kill -9 of the daemon's child: its daemon sends another, which finishes the run."""
    grow(shop)
    configure(shop)
    owe(shop)
    expected, rows = expected_books(shop, "points")
    with hold_row(shop, "points") as hold, shop.start() as daemon:
        hold.reached(daemon)
        (child,) = daemon.children()
        os.kill(child, signal.SIGKILL)
        hold.release()
        wait_until(lambda: shop.runs()[0]["state"] == "done", what="the run to be done")
        assert daemon.stop() == 0, daemon.log()
    check_books(shop, expected)
    run = only_run(shop, "done", rows, attempt=2)
    assert run["due"] == today()


def test_a_daemon_killed_alone(shop):
    """Its child hears of it, and stops as if asked to: nothing goes on without a daemon."""
    grow(shop)
    configure(shop)
    owe(shop)
    expected, rows = expected_books(shop, "points")
    with hold_row(shop, "points") as hold, shop.start() as daemon:
        hold.reached(daemon)
        daemon.signal(signal.SIGKILL)
        assert daemon.wait() == -signal.SIGKILL
        hold.release()
        wait_gone(shop)
    only_run(shop, "interrupted", attempt=1)
    once(shop)
    check_books(shop, expected)
    only_run(shop, "done", rows, attempt=2)


# What befalls a transaction, and whether the program is killed by it or only loses its connection.
BLOWS = [("drop", False), ("lose", True), ("drop", True), ("lose", False), ("lose", False)]


def strike(shop, kind, prepare):
    """
    One round after another, each struck at another of the transactions that the program sends: its connection is cut (so
    that the server never sees the transaction, or executes it and the answer is lost), or it is killed at that moment.
    """
    with Proxy(shop) as proxy:
        direct = configure(shop, kind, lanes=2, batch_max=250)
        through = configure(shop, kind, lanes=2, batch_max=250, database={"conninfo": proxy.conninfo})
        first = []
        proxy.arm(lambda number, unit: first.append(number) if b"WITH settle AS" in unit else None)
        prepare()
        once(shop, kind, config=through)
        total = proxy.count
        assert 10 < first[0] < total - 20
        for number in range(first[0], total + 1, 24 if WRAPPER else 6):  # in step with no blow
            strike_at(shop, kind, prepare, proxy, number, direct, through)


def strike_at(shop, kind, prepare, proxy, number, direct, through):
    blow, killed = BLOWS[number % len(BLOWS)]
    prepare()
    before = len(shop.runs())
    expected, rows = expected_books(shop, kind)
    started, processes = threading.Event(), []

    def kill():
        assert started.wait(20)
        processes[0].signal(signal.SIGKILL)

    proxy.arm(lambda at, _: blow if at == number else None, kill if killed else lambda: None)
    with shop.start("--run-once", JOBS[kind]["name"], config=through) as process:
        processes.append(process)
        started.set()
        status = process.wait()
    where = f"{blow}, {'killed' if killed else 'cut'} at transaction {number}, status {status}: {process.log()}"
    wait_gone(shop)
    # Once the ledger has it as reported, the next command would be a new one.
    if not any(run["reported_at"] for run in shop.runs()[before:]):
        assert status in (1, -signal.SIGKILL) or "could not be recorded" in process.log(), where
        assert shop.roundsman("--run-once", JOBS[kind]["name"], config=direct).status == 0, where
    books = shop.books()
    assert books == expected, where + books.explain(expected)
    (run,) = shop.runs()[before:]
    assert (run["state"], run["rows_done"]) == ("done", rows) and run["reported_at"], where


def test_points_struck_at_any_transaction(shop):
    shop.populate(users=2500)
    strike(shop, "points", lambda: None)


def test_cancel_struck_at_any_transaction(shop):
    shop.populate(orders=24)
    strike(shop, "cancel", lambda: shop.sql("UPDATE shop.orders SET status = 'PAYING', last_modified_at = now() -"
                                            " interval '1 hour' WHERE status IN ('CANCELED', 'PAYING')"))


# ---- Asked to stop ----

@pytest.mark.parametrize("kind", ["points", "restock", "cancel"])
def test_sigterm(shop, kind):
    """What was sent is committed, the run is interrupted with status 11, and the next one resumes it."""
    grow(shop)
    configure(shop, kind, batch_max=10 if kind == "restock" else 100)
    expected, rows = expected_books(shop, kind)
    with hold_row(shop, kind) as hold, shop.start("--run-once", JOBS[kind]["name"]) as process:
        hold.reached(process)
        process.signal(signal.SIGTERM)
        hold.release()
        assert process.wait() == 11, process.log()
    run = only_run(shop, "interrupted")
    assert run["rows_done"] == sum(lane["rows_done"] for lane in shop.lanes())
    assert 0 < run["rows_done"] < rows
    once(shop, kind)
    check_books(shop, expected)
    only_run(shop, "done", rows, attempt=2)


def test_ctrl_c_twice_ends_it_although_the_server_does_not_answer(shop):
    shop.pace(0.01)
    shop.configure(jobs=[{"name": "points", "kind": "points", "schedule": "@yearly", "amount": 10, "where": "public.pace(id)"}])
    expected = shop.books().with_points(10)
    with shop.start("--run-once", "points") as process:
        wait_until(lambda: any(lane["cursor"] for lane in shop.lanes()), what="a batch")
        pids = [pid for pid, in shop.sql("SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                                         " AND application_name LIKE 'roundsman%%'")]
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            process.signal(signal.SIGINT)
            time.sleep(0.3)
            assert process.popen.poll() is None  # the first one waits for what is in flight
            process.signal(signal.SIGINT)
            assert process.wait() == -signal.SIGINT
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not shop.sql("SELECT FROM pg_stat_activity WHERE pid = ANY(%s)", pids), what="its sessions to end")
    shop.pace(0)
    assert shop.roundsman("--run-once", "points").status == 0
    assert shop.books() == expected


def test_sigterm_to_the_daemon_and_frozen_parameters(shop):
    """The next daemon resumes with the parameters that the run started with, though the file has others by now."""
    grow(shop)
    configure(shop)
    owe(shop)
    expected, rows = expected_books(shop, "points")
    with hold_row(shop, "points") as hold, shop.start() as daemon:
        hold.reached(daemon)
        daemon.signal(signal.SIGTERM)
        daemon.wait_for("stopping")
        hold.release()
        assert daemon.wait() == 0, daemon.log()
    run = only_run(shop, "interrupted")
    assert 0 < run["rows_done"] < rows
    # Later rows are not the run's, neither in between nor behind its last key.
    before = run["params"]
    shop.sql("INSERT INTO shop.users (id, name, points) SELECT n, 'late', 0 FROM generate_series(3001, 3100) AS n")
    configure(shop, lanes=1, more={"amount": 1000, "where": "id < 10"})
    with shop.start() as daemon:
        wait_until(lambda: shop.runs()[0]["state"] == "done", what="the run to be done")
        assert daemon.stop() == 0, daemon.log()
    expected.points.update((key, 0) for key in range(3001, 3101))
    check_books(shop, expected)
    run = only_run(shop, "done", rows, attempt=2)
    assert run["params"] == before and before["amount"] == 7


def test_frozen_age(shop):
    """An order is judged by the instant at which the run started, and by the age that the file had then."""
    configure(shop, "cancel")
    expected, rows = expected_books(shop, "cancel")
    with hold_row(shop, "cancel") as hold, shop.start("--run-once", "cancel-unpaid") as process:
        hold.reached(process)
        process.signal(signal.SIGKILL)
        process.wait()
        hold.release()
    wait_gone(shop)
    run = only_run(shop, "running")
    (young,) = shop.sql("INSERT INTO shop.orders (user_id, status, last_modified_at) SELECT 1, 'PAYING',"
                        " %s - interval '1799.9 seconds' RETURNING id", run["started_at"])[0]
    configure(shop, "cancel", more={"older_than": "1m", "statuses": ["PAID"]})
    once(shop, "cancel")
    expected.status[young] = "PAYING"
    check_books(shop, expected)
    only_run(shop, "done", rows, attempt=2)


# ---- Lanes ----

def check_tiling(lanes, first, last):
    assert [lane["lane"] for lane in lanes] == list(range(len(lanes)))
    assert lanes[0]["range_from"] is None
    assert lanes[-1]["range_to"] == str(last)
    for left, right in zip(lanes, lanes[1:]):
        assert left["range_to"] == right["range_from"]
        assert first <= int(left["range_to"]) < int(right["range_to"])


@pytest.mark.parametrize("count", [1, 3, 7])
def test_lanes_tile_the_range(shop, count):
    grow(shop)
    shop.sql("DELETE FROM shop.order_items; DELETE FROM shop.orders; DELETE FROM shop.users WHERE id % 3 = 1 AND id < 2000")
    shop.sql("ANALYZE shop.users")
    configure(shop, lanes=count)
    expected, rows = expected_books(shop, "points")
    late = rows
    with hold_row(shop, "points", 1) as hold, shop.start("--run-once", "daily-points") as process:
        hold.reached(process)
        shop.sql("INSERT INTO shop.users (id, name, points) SELECT n, 'late', 0 FROM generate_series(3001, 3050) AS n")
        check_tiling(shop.lanes(), 1, 3000)
        hold.release()
        assert process.wait() == 0, process.log()
    lanes = shop.lanes()
    assert len(lanes) == count
    check_tiling(lanes, 1, 3000)
    assert all(lane["cursor"] == lane["range_to"] for lane in lanes)
    for lane in lanes:
        assert lane["rows_done"] == shop.value("SELECT count(*) FROM shop.users WHERE id > %s AND id <= %s",
                                               int(lane["range_from"] or 0), int(lane["range_to"]))
    expected.points.update((key, 0) for key in range(3001, 3051))
    check_books(shop, expected)
    only_run(shop, "done", late)


# ---- A manual run whose outcome was lost ----

def test_a_lost_outcome_is_reported_and_not_repeated(shop):
    """The process and its session end after the run is done and before that is recorded as reported."""
    grow(shop)
    configure(shop)
    expected, rows = expected_books(shop, "points")
    with Hold(shop, "roundsman.run", "NEW.reported_at IS NOT NULL") as hold:
        with shop.start("--run-once", "daily-points") as process:
            session = hold.reached(process)
            process.signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            shop.sql("SELECT pg_terminate_backend(%s)", session)
            wait_gone(shop)
        hold.release()
    run = only_run(shop, "done", rows)
    assert run["reported_at"] is None
    result = once(shop)
    assert f"run {run['id']}" in result.out and "no new run is made" in result.out and "3000 rows changed" in result.out
    check_books(shop, expected)
    run = only_run(shop, "done", rows)
    assert run["reported_at"]
    once(shop)
    check_books(shop, expected.with_points(7))
    assert [run["state"] for run in shop.runs()] == ["done", "done"]


@pytest.mark.parametrize("owed", [False, True], ids=["manual", "owed"])
@pytest.mark.parametrize("statement", [b"WITH settle AS", b"SET state = 'done'", b"SET reported_at"],
                         ids=["started", "done", "reported"])
def test_a_lost_reply(shop, statement, owed):
    """The server commits, and the connection is lost before its answer arrives."""
    expected, rows = expected_books(shop, "points")
    with Proxy(shop) as proxy:
        configure(shop, database={"conninfo": proxy.conninfo})
        if owed:
            owe(shop)
        proxy.arm(lambda number, unit: "lose" if statement in unit else None)
        result = shop.roundsman("--run-once", "daily-points")
        assert proxy.lost.is_set()
    run = only_run(shop, "running" if b"settle" in statement else "done")
    configure(shop)
    assert result.status == (0 if b"reported" in statement else 1), result
    if b"reported" in statement:  # the outcome was printed, and the ledger says so
        assert run["reported_at"] and "1000 rows changed" in result.out
    elif not owed or run["state"] != "done":  # a done occurrence owes nothing: the next command would be an extra run
        once(shop)
    check_books(shop, expected)
    only_run(shop, "done", rows)
    assert shop.value("SELECT settled_through = %s FROM roundsman.job", today()) == owed


@pytest.mark.parametrize("kind", ["points", "cancel"])
@pytest.mark.parametrize("blow", ["drop", "lose"])
def test_a_lost_retry_of_a_leftover(shop, kind, blow):
    """The deletion of the leftover is the gate of its change."""
    table = TABLES[kind]
    expected, rows = expected_books(shop, kind)
    key = shop.stale_orders()[0] if kind == "cancel" else 500
    with Proxy(shop) as proxy:
        configure(shop, kind, database={"conninfo": proxy.conninfo})
        with shop.hold(f"SELECT FROM shop.{table} WHERE id = %s FOR UPDATE", key):
            once(shop, kind, status=10)
        only_run(shop, "partial", rows - 1)
        proxy.arm(lambda number, unit: blow if b"DELETE FROM \"roundsman\".leftover" in unit else None)
        once(shop, kind, status=1)
        assert len(shop.leftovers()) == (blow == "drop")
        configure(shop, kind)
        once(shop, kind)
    check_books(shop, expected)
    only_run(shop, "done", rows)
    assert shop.leftovers() == []


@pytest.mark.parametrize("kind", ["points", "cancel"])
def test_a_leftover_that_cannot_be_deleted_is_not_done(shop, kind):
    """The deletion is the gate: without it the row would be done at every attempt."""
    expected, rows = expected_books(shop, kind)
    key = shop.stale_orders()[0] if kind == "cancel" else 500
    configure(shop, kind)
    with shop.hold(f"SELECT FROM shop.{TABLES[kind]} WHERE id = %s FOR UPDATE", key):
        once(shop, kind, status=10)
    books = shop.books()
    shop.sql("CREATE FUNCTION public.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
             " CREATE TRIGGER keep BEFORE DELETE ON roundsman.leftover FOR EACH ROW EXECUTE FUNCTION public.keep()")
    once(shop, kind, status=10)
    check_books(shop, books)
    shop.sql("DROP TRIGGER keep ON roundsman.leftover")
    once(shop, kind)
    check_books(shop, expected)
    only_run(shop, "done", rows)


def test_only_typed_again(shop):
    """The same command resumes, then reports; another --only is refused meanwhile, naming the run."""
    configure(shop)
    keys = [3, 5, 7]
    only = [word for key in keys for word in ("--only", key)]
    expected = shop.books()
    expected.points.update({key: expected.points[key] + 7 for key in keys})
    with Hold(shop, "shop.users", "OLD.id = 5") as hold, shop.start("--run-once", "daily-points", *only) as process:
        shop.sql("SELECT pg_terminate_backend(%s)", hold.reached(process))
        assert process.wait() == 1, process.log()
        hold.release()
    run = only_run(shop, "failed", 0)
    before = ledger(shop)
    for others in (["--only", 9], ["--only", 3], only + ["--set", "amount=8"], ["--set", "amount=8"],
                   ["--due", today().isoformat()]):
        result = once(shop, "points", *others, status=2)
        assert f"run {run['id']} " in result.err and "refused" in result.err
    assert ledger(shop) == before
    once(shop, "points", *only)
    check_books(shop, expected)
    only_run(shop, "done", 3, attempt=2)
    # Finished, and not reported.
    shop.sql("UPDATE roundsman.run SET reported_at = NULL")
    result = once(shop, "points", *only)
    assert "no new run is made" in result.out
    check_books(shop, expected)
    once(shop, "points", *only)
    expected.points.update({key: expected.points[key] + 7 for key in keys})
    check_books(shop, expected)
    assert len(shop.runs()) == 2


def test_an_unfinished_extra_run_is_finished_by_the_plain_command(shop):
    configure(shop)
    expected = shop.books()
    expected.points[5] += 50
    with Hold(shop, "shop.users", "OLD.id = 5") as hold, \
            shop.start("--run-once", "daily-points", "--only", 5, "--set", "amount=50") as process:
        hold.reached(process)
        process.signal(signal.SIGKILL)
        process.wait()
        hold.release()
    wait_gone(shop)
    once(shop)
    check_books(shop, expected)
    only_run(shop, "done", 1, attempt=2)


def test_a_leftover_in_flight_is_waited_for(shop):
    """Killed while an order is being left over: the run is not taken up, and so not done, before that is committed."""
    configure(shop, "cancel")
    expected, rows = expected_books(shop, "cancel")
    stuck = shop.stale_orders()[0]
    with Hold(shop, "roundsman.leftover", "true", "INSERT") as hold:
        with shop.hold("SELECT FROM shop.orders WHERE id = %s FOR UPDATE", stuck), \
                shop.start("--run-once", "cancel-unpaid") as process:
            hold.reached(process)
            process.signal(signal.SIGKILL)
            process.wait()
        with shop.start("--run-once", "cancel-unpaid") as fresh:
            wait_until(lambda: fresh.popen.poll() is not None
                       or lock_waits(shop), what="the next process to wait, or to end")
            hold.release()
            assert fresh.wait() == 0, fresh.log()
    check_books(shop, expected)
    only_run(shop, "done", rows)
    assert shop.leftovers() == []


# ---- A stale runner ----

@contextlib.contextmanager
def stopped(shop, proxy, kind, share=0.5):
    """A run that is stopped (SIGSTOP) with all it had sent executed, and the server no longer has its job's lock."""
    with hold_row(shop, kind, share) as hold, shop.start("--run-once", JOBS[kind]["name"]) as process:
        hold.reached(process)
        process.signal(signal.SIGSTOP)
        hold.release()
        wait_idle(shop)
        proxy.links[0].go_deaf()
        wait_until(lambda: not shop.sql("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND classid = 1919184238"),
                   what="the lock to be free")
        try:
            yield process
        finally:
            process.signal(signal.SIGCONT)


@pytest.mark.parametrize("kind", ["points", "cancel"])
def test_a_stale_runner_changes_nothing(shop, kind):
    """It was cut off from its lock without noticing, another process took its run up and finished it; then it wakes up."""
    grow(shop)
    expected, rows = expected_books(shop, kind)
    with Proxy(shop) as proxy:
        configure(shop, kind, lanes=1, database={"conninfo": proxy.conninfo})
        with stopped(shop, proxy, kind, 0.1) as stale:
            direct = configure(shop, kind)
            assert 0 < sum(lane["rows_done"] for lane in shop.lanes()) < rows
            once(shop, kind, config=direct)
            check_books(shop, expected)
            run = only_run(shop, "done", rows, attempt=2)
            before = ledger(shop)
            if kind == "cancel":  # what it still means to cancel is there to be canceled once more
                shop.sql("UPDATE shop.orders SET status = 'PAYING', last_modified_at = now() - interval '1 hour'"
                         " WHERE status = 'CANCELED'")
            books = shop.books()
            stale.signal(signal.SIGCONT)
            assert stale.wait() == 1, stale.log()
            assert "another process has taken the run up" in stale.log()
    check_books(shop, books)
    assert ledger(shop) == before, run


@pytest.mark.parametrize("kind", ["points", "cancel"])
def test_a_stale_runner_beside_the_one_that_took_over(shop, kind):
    """Both at once: the new one is in the middle of the run when the old one wakes up."""
    grow(shop)
    expected, rows = expected_books(shop, kind)
    with Proxy(shop) as proxy:
        configure(shop, kind, lanes=1, database={"conninfo": proxy.conninfo})
        with stopped(shop, proxy, kind, 0.1) as stale:
            configure(shop, kind)
            with hold_row(shop, kind, 0.7) as hold, shop.start("--run-once", JOBS[kind]["name"]) as fresh:
                hold.reached(fresh)
                stale.signal(signal.SIGCONT)
                assert stale.wait() == 1, stale.log()
                assert "another process has taken the run up" in stale.log()
                only_run(shop, "running", attempt=2)
                hold.release()
                assert fresh.wait() == 0, fresh.log()
    check_books(shop, expected)
    only_run(shop, "done", rows, attempt=2)


def test_a_stale_runner_does_not_revive_what_was_abandoned(shop):
    grow(shop)
    with Proxy(shop) as proxy:
        configure(shop, database={"conninfo": proxy.conninfo})
        with stopped(shop, proxy, "points") as stale:
            direct = configure(shop)
            result = shop.roundsman("--abandon", "daily-points", config=direct)
            assert result.status == 0, result
            run = only_run(shop, "abandoned")
            before, books = ledger(shop), shop.books()
            stale.signal(signal.SIGCONT)
            assert stale.wait() == 1, stale.log()
    check_books(shop, books)
    assert ledger(shop) == before
    assert run["rows_done"] == sum(lane["rows_done"] for lane in shop.lanes())


def test_a_stale_runner_of_a_run_that_was_failed_meanwhile(shop):
    """Another process could not take the run up and said so: what the old one still commits counts, and is not done again."""
    grow(shop)
    expected, rows = expected_books(shop, "points")
    with Proxy(shop) as proxy:
        configure(shop, lanes=1, database={"conninfo": proxy.conninfo})
        with stopped(shop, proxy, "points", 0.1) as stale:
            direct = configure(shop)
            shop.sql("UPDATE roundsman.run SET params = params || '{\"kind\": \"?\"}'")
            once(shop, status=1, config=direct)
            only_run(shop, "failed", attempt=1)
            shop.sql("UPDATE roundsman.run SET params = params || '{\"kind\": \"points\"}'")
            stale.signal(signal.SIGCONT)
            wait_until(lambda: [lane["cursor"] for lane in shop.lanes()] == ["3000"], what="the stale runner's last batch")
            stale.signal(signal.SIGKILL)
            stale.wait()
    check_books(shop, expected)
    only_run(shop, "failed", attempt=1)
    once(shop, config=direct)
    check_books(shop, expected)
    only_run(shop, "done", rows, attempt=2)


@pytest.mark.parametrize("ending", ["done", "interrupted", "failed"])
def test_a_stale_runner_marks_the_run_nothing(shop, ending):
    """Its session with the ledger lives, the run is another attempt's: neither done, interrupted nor failed is its to say."""
    grow(shop)
    configure(shop, lanes=1)
    with hold_row(shop, "points", 1 if ending == "done" else 0.5) as hold, \
            shop.start("--run-once", "daily-points") as stale:
        session = hold.reached(stale)
        stale.signal(signal.SIGSTOP)
        if ending != "failed":
            hold.release()
            wait_idle(shop)
        else:
            shop.sql("SELECT pg_terminate_backend(%s)", session)
            wait_until(lambda: session not in [pid for pid, *_ in sessions(shop)], what="the session's end")
        # As another process takes it up: that one's lock is not what this is about.
        shop.sql("UPDATE roundsman.run SET attempt = 2; UPDATE roundsman.lane SET attempt = 2")
        before, books = ledger(shop), shop.books()
        if ending == "interrupted":
            stale.signal(signal.SIGTERM)
        stale.signal(signal.SIGCONT)
        status = stale.wait()
        assert status == (11 if ending == "interrupted" else 1), stale.log()
        assert ("changed the ledger" if ending == "done" else "taken it up") in stale.log()
    check_books(shop, books)
    assert ledger(shop) == before


def test_a_stale_runner_retries_no_leftover(shop):
    """The run is another attempt's, and what it left over with it."""
    grow(shop)
    configure(shop, lanes=1)
    with shop.hold("SELECT FROM shop.users WHERE id = 77 FOR UPDATE") as other, hold_row(shop, "points", 1) as hold, \
            shop.start("--run-once", "daily-points") as stale:
        hold.reached(stale)
        stale.signal(signal.SIGSTOP)
        hold.release()
        wait_idle(shop)
        shop.sql("UPDATE roundsman.run SET attempt = 2; UPDATE roundsman.lane SET attempt = 2")
        other.rollback()
        before, books = ledger(shop), shop.books()
        stale.signal(signal.SIGCONT)
        assert stale.wait() == 1, stale.log()
        assert "changed the ledger" in stale.log()
    check_books(shop, books)
    assert ledger(shop) == before and len(shop.leftovers()) == 1


def test_a_cursor_that_somebody_moved(shop):
    """The cursor must be where this process saw it last: otherwise somebody else went on, whoever it was."""
    grow(shop)
    configure(shop, lanes=1)
    with hold_row(shop, "points") as hold, shop.start("--run-once", "daily-points") as process:
        hold.reached(process)
        process.signal(signal.SIGSTOP)
        hold.release()
        wait_idle(shop)
        shop.sql("UPDATE roundsman.lane SET cursor = '2345'")
        before, books = ledger(shop), shop.books()
        process.signal(signal.SIGCONT)
        assert process.wait() == 1, process.log()
        assert "another process has taken the run up" in process.log()
    check_books(shop, books)
    assert ledger(shop) == before


# ---- Beside each other ----

def check_seconds(shop, amount, before):
    """Each second between the first run and the last one has its run, done once."""
    runs = shop.runs()
    assert all(run["state"] == "done" and run["rows_done"] == 1000 for run in runs), runs
    dues = sorted(run["due"] for run in runs)
    assert dues == [dues[0] + datetime.timedelta(seconds=n) for n in range(len(dues))]
    check_books(shop, before.with_points(amount * len(runs)))
    return len(runs)


def named(shop, name):
    """A configuration whose sessions can be told apart."""
    return shop.configure(jobs=[{**POINTS, "schedule": "* * * * * *"}],
                          database={"conninfo": f"{shop.conninfo()} application_name={name}"})


def test_two_daemons(shop):
    """Each second's occurrence is run once; one daemon is killed in the middle of a run, and the other takes over."""
    before = shop.books()
    with contextlib.ExitStack() as stack:
        daemons = {name: stack.enter_context(shop.start(config=named(shop, name))) for name in ("one", "two")}
        wait_until(lambda: [run["state"] for run in shop.runs()].count("done") >= 2, what="two occurrences")
        with Hold(shop, "shop.users", "OLD.id = 500") as hold:
            session = hold.reached(daemons["one"])
            held = shop.runs()[-1]
            name = shop.value("SELECT application_name FROM pg_stat_activity WHERE pid = %s", session)
            victim = daemons.pop(name)
            (other,) = daemons.values()
            for pid in [victim.pid] + victim.children():
                os.kill(pid, signal.SIGKILL)
            assert victim.wait() == -signal.SIGKILL
            hold.release()
        begun = time.monotonic()
        # More: the ones that fell due meanwhile.
        wait_until(lambda: [run["state"] for run in shop.runs() if run["id"] >= held["id"]].count("done") >= 3,
                   what="the other one to take over and go on")
        assert time.monotonic() - begun < 8 * PATIENCE
        assert other.stop() == 0, other.log()
    runs = shop.runs()
    assert [run["attempt"] for run in runs if run["id"] == held["id"]] == [2]
    # The stop may have interrupted the last one.
    if runs[-1]["state"] != "done":
        once(shop, "points", config=named(shop, "three"))
        runs = shop.runs()
    assert all((run["state"], run["rows_done"]) == ("done", 1000) for run in runs), runs
    assert [run["due"] for run in runs] == [runs[0]["due"] + datetime.timedelta(seconds=n) for n in range(len(runs))]
    check_books(shop, before.with_points(7 * len(runs)))
    assert shop.value("SELECT settled_through FROM roundsman.job") == runs[-1]["due"]


def test_a_busy_job(shop):
    """Another command says so at once; a standby of the daemon waits, and holds up neither vacuum nor CREATE INDEX."""
    grow(shop)
    configure(shop)
    owe(shop)
    expected, rows = expected_books(shop, "points")
    with hold_row(shop, "points") as hold, shop.start() as running:
        hold.reached(running)
        with shop.hold("SELECT FROM shop.users WHERE id = 1700 FOR UPDATE"):  # a wait that is not ours to share
            for arguments in (["--run-once", "daily-points"], ["--run-once", "daily-points", "--only", 1],
                              ["--run-once", "daily-points", "--due", today().isoformat()], ["--abandon", "daily-points"]):
                begun = time.monotonic()
                result = shop.roundsman(*arguments)
                assert result.status == 75 and "another process is running this job" in result.err, result
                assert time.monotonic() - begun < 2 * PATIENCE
        (child,) = running.children()
        os.kill(child, signal.SIGSTOP)  # between two transactions
        hold.release()
        wait_idle(shop)
        with shop.start("-v", config=named_like(shop, "standby")) as standby:
            standby.wait_for("standing by")
            polls = "SELECT query_start FROM pg_stat_activity WHERE application_name = 'standby' AND query LIKE '%advisory%'"
            first = wait_until(lambda: shop.sql(polls), what="the standby's poll")
            assert shop.sql("SELECT count(*) FILTER (WHERE backend_xmin IS NOT NULL OR wait_event_type = 'Lock')"
                            " FROM pg_stat_activity WHERE application_name = 'standby'") == [(0,)]
            with shop.connect() as connection:
                connection.execute("SET statement_timeout = '10s'")
                connection.execute("CREATE INDEX CONCURRENTLY ON shop.users (name)")
            oldest = "SELECT coalesce(min(backend_xmin::text::bigint), 0) FROM pg_stat_activity WHERE usename = 'roundsman'"
            wait_until(lambda: shop.sql(polls) > first, what="the next poll")
            assert shop.value(oldest) == 0
            os.kill(child, signal.SIGKILL)  # and the standby takes over
            wait_until(lambda: shop.runs()[0]["state"] == "done", what="the standby to take over")
            assert standby.stop() == 0, standby.log()
        assert running.stop() == 0, running.log()
    check_books(shop, expected)
    only_run(shop, "done", rows, attempt=2)


def named_like(shop, name):
    return configure(shop, database={"conninfo": f"{shop.conninfo()} application_name={name}"})


# ---- Occurrences and what the ledger remembers of them ----

def test_settled_through_only_grows(shop):
    """A process that read the ledger long ago starts no run, and does not move settled_through back."""
    with Proxy(shop) as proxy:
        configure(shop, database={"conninfo": proxy.conninfo})
        owe(shop)
        before = shop.books()
        late = today() + datetime.timedelta(hours=1)

        def judge(_, unit):
            if b"WITH settle AS" in unit:  # another process settles it at this moment
                shop.sql("UPDATE roundsman.job SET settled_through = %s", late)

        proxy.arm(judge)
        result = once(shop, "points", status=1)
        assert "another process changed the ledger meanwhile" in result.err
    assert shop.value("SELECT settled_through FROM roundsman.job") == late
    assert shop.runs() == []
    check_books(shop, before)


def test_an_occurrence_settled_by_hand_is_not_run_again(shop):
    configure(shop)
    owe(shop, days=2)
    before = shop.books()
    once(shop, "points", "--due", today().isoformat())
    check_books(shop, before.with_points(7))
    once(shop)  # yesterday's
    check_books(shop, before.with_points(14))
    runs = shop.runs()
    assert [(run["due"], run["state"]) for run in runs] == [(today(), "done"), (today() - datetime.timedelta(days=1), "done")]
    assert shop.value("SELECT settled_through FROM roundsman.job") == today()


def test_abandon(shop):
    """What was committed stays, the rest is not done, and the next occurrence is."""
    grow(shop)
    configure(shop)
    result = shop.roundsman("--abandon", "daily-points")  # which no daemon has seen yet
    assert result.status == 0 and "nothing to do: no run is unfinished" in result.err, result
    assert shop.roundsman("--abandon", "daily-points", "-n", 1).status == 1
    result = shop.roundsman("--abandon", "daily-point")
    assert result.status == 2 and 'has such a job; did you mean "daily-points"?' in result.err, result
    owe(shop, days=2)
    before = shop.books()
    with hold_row(shop, "points") as hold, shop.start("--run-once", "daily-points") as process:
        hold.reached(process)
        process.signal(signal.SIGTERM)
        hold.release()
        assert process.wait() == 11, process.log()
    run = only_run(shop, "interrupted")
    partly = shop.books()
    changed = [key for key in before.points if partly.points[key] != before.points[key]]
    assert len(changed) == run["rows_done"]
    assert shop.roundsman("--abandon", "daily-points", "-n", run["id"] + 1).status == 1
    assert shop.roundsman("--abandon", "daily-points").status == 0
    check_books(shop, partly)
    abandoned = only_run(shop, "abandoned", len(changed), attempt=2)
    assert "given up" in abandoned["error"] and abandoned["finished_at"]
    assert shop.roundsman("--abandon", "daily-points").status == 0
    assert only_run(shop, "abandoned") == abandoned
    once(shop)
    check_books(shop, partly.with_points(7))
    first, second = shop.runs()
    assert first == abandoned
    check_run(second, "done", 3000, attempt=1)
    assert second["due"] == today()
    result = once(shop, "points", "--due", first["due"].isoformat())
    assert "settled already" in result.err
    check_books(shop, partly.with_points(7))


@pytest.mark.parametrize("kind", ["points", "cancel"])
def test_abandon_counts_what_is_in_flight(shop, kind):
    """The transaction of a killed process is waited for, and counted."""
    grow(shop)
    configure(shop, kind)
    before = shop.books()
    with hold_row(shop, kind) as hold:
        with shop.start("--run-once", JOBS[kind]["name"]) as process:
            hold.reached(process)
            process.signal(signal.SIGKILL)
            process.wait()
        with shop.start("--abandon", JOBS[kind]["name"]) as abandon:
            wait_until(lambda: abandon.popen.poll() is not None or lock_waits(shop), what="the command to wait")
            hold.release()
            assert abandon.wait() == 0, abandon.log()
    wait_gone(shop)
    run = only_run(shop, "abandoned")
    books = shop.books()
    what = "points" if kind == "points" else "status"
    changed = sum(1 for key, value in getattr(before, what).items() if getattr(books, what)[key] != value)
    assert 0 < changed == run["rows_done"] == sum(lane["rows_done"] for lane in shop.lanes())
    assert f"{changed} rows were changed" in abandon.log() and f"{changed} rows were changed" in run["error"]


def test_keys_in_another_order_are_not_resumed(shop):
    """A collation whose version is another one now (after a failover): refused, until the run is given up."""
    shop.sql("""CREATE TABLE shop.people (name text COLLATE "und-x-icu" PRIMARY KEY, points bigint NOT NULL DEFAULT 0);
                INSERT INTO shop.people SELECT 'name ' || n, 0 FROM generate_series(1, 300) AS n;
                GRANT SELECT, UPDATE ON shop.people TO roundsman""")
    configure(shop, batch_max=50, tables={"users": {"table": "shop.people", "key": "name", "touched": ""}})
    with Hold(shop, "shop.people", "OLD.name = 'name 200'") as hold, shop.start("--run-once", "daily-points") as process:
        hold.reached(process)
        process.signal(signal.SIGTERM)
        hold.release()
        assert process.wait() == 11, process.log()
    run = only_run(shop, "interrupted")
    version = run["params"]["key"]["version"]
    assert version and run["params"]["key"]["collation"]
    points = "SELECT name, points FROM shop.people ORDER BY 1"
    before = shop.sql(points)
    for key, value in (("version", f"{version}.1"), ("collation", "pg_catalog.C")):
        shop.sql("UPDATE roundsman.run SET params = jsonb_set(params, ARRAY['key', %s], to_jsonb(%s::text))", key, value)
        lanes = shop.lanes()
        result = once(shop, "points", status=1)
        assert "keys may be in another order" in result.err and f"--abandon daily-points -n {run['id']}" in result.err
        assert value in result.err
        assert shop.lanes() == lanes
        failed = only_run(shop, "failed", attempt=1)
        assert failed["error"] in result.err and "keys may be in another order" in failed["error"]
        shop.sql("UPDATE roundsman.run SET params = jsonb_set(params, ARRAY['key', %s], to_jsonb(%s::text))",
                 key, run["params"]["key"][key])
    shop.sql("UPDATE roundsman.run SET params = jsonb_set(params, '{key,version}', '\"0\"')")
    assert shop.roundsman("--abandon", "daily-points", "-n", run["id"]).status == 0
    assert shop.sql(points) == before
    once(shop)
    assert shop.sql(points) == [(name, value + 7) for name, value in before]


def test_a_run_that_cannot_be_taken_up_is_failed(shop):
    """The ledger has the reason, so that --status is critical; the run goes on when that is mended."""
    grow(shop)
    configure(shop)
    owe(shop)
    expected, rows = expected_books(shop, "points")
    with hold_row(shop, "points") as hold, shop.start("--run-once", "daily-points") as process:
        hold.reached(process)
        process.signal(signal.SIGKILL)
        process.wait()
        hold.release()
    wait_gone(shop)
    run, lanes = only_run(shop, "running"), shop.lanes()
    for harm, mend, reason in (("REVOKE UPDATE ON shop.users FROM roundsman", "GRANT UPDATE ON shop.users TO roundsman", "GRANT UPDATE"),
                               ("UPDATE roundsman.run SET params = params || '{\"kind\": \"?\"}'",
                                "UPDATE roundsman.run SET params = params || '{\"kind\": \"points\"}'", "cannot be used")):
        shop.sql(harm)
        result = once(shop, status=1)
        failed = only_run(shop, "failed", sum(lane["rows_done"] for lane in lanes), attempt=1)
        assert reason in failed["error"] and failed["error"] in result.err
        status = shop.roundsman("--status")
        assert status.status == 2 and f"run {run['id']} failed: " in status.out and reason in status.out
        assert failed["error"] in once(shop, "points", "--dry-run", status=1).err
        shop.sql(mend)
    assert shop.lanes() == lanes
    once(shop)
    check_books(shop, expected)
    only_run(shop, "done", rows, attempt=2)


def test_retention(shop):
    """Old runs are deleted, what was settled is not forgotten, and a run with leftovers stays."""
    days = [today() - datetime.timedelta(days=n) for n in range(12, 5, -1)]
    shop.populate(users=10, orders=0)
    configure(shop, more={"catch_up": "latest"}, ledger={"keep": "5d"})
    for day in days:
        once(shop, "points", "--due", day.isoformat())
    once(shop, "points", "--only", 1)
    runs = shop.runs()
    shop.sql("UPDATE roundsman.run SET finished_at = started_at - interval '6 days', started_at = started_at - interval '6 days'"
             " WHERE id <> %s", runs[6]["id"])
    partial, abandoned, unreported, manual = runs[2], runs[3], runs[4], runs[7]
    shop.sql("INSERT INTO roundsman.leftover (run_id, key, lane, reason, next_attempt) SELECT id, '3', 0, 'locked', now() +"
             " interval '1 day' FROM roundsman.run WHERE id IN (%s, %s)", partial["id"], abandoned["id"])
    shop.sql("UPDATE roundsman.run SET state = 'partial' WHERE id = %s", partial["id"])
    shop.sql("UPDATE roundsman.run SET state = 'abandoned' WHERE id = %s", abandoned["id"])
    shop.sql("UPDATE roundsman.run SET reported_at = NULL WHERE id IN (%s, %s)", unreported["id"], manual["id"])
    books, settled = shop.books(), shop.value("SELECT settled_through FROM roundsman.job")
    # A manual run whose outcome nobody was told stays until it was; nobody waits to be told of a scheduled one.
    stay = [runs[2]["id"], runs[3]["id"], runs[6]["id"], manual["id"]]
    with shop.start() as daemon:
        wait_until(lambda: [run["id"] for run in shop.runs()] == stay, what="the old runs to be deleted")
        assert daemon.stop() == 0, daemon.log()
    assert {lane["run_id"] for lane in shop.lanes()} == set(stay)
    assert shop.value("SELECT settled_through FROM roundsman.job") == settled
    assert shop.sql("SELECT pruned_from, pruned_through FROM roundsman.job") == [(days[0], days[5])]
    for day in (days[0], days[1], days[5]):
        result = once(shop, "points", "--due", day.isoformat(), status=1)
        assert "ledger.keep" in result.err
    once(shop, "points", "--due", days[6].isoformat())  # which is still there to say that it is done
    check_books(shop, books)
    once(shop, "points", "--due", (days[0] - datetime.timedelta(days=1)).isoformat())  # before all of it: a backfill
    check_books(shop, books.with_points(7))


# ---- What done means ----

def test_done_requires_every_cursor_at_its_end(shop):
    """The ledger itself refuses, whatever the process believes."""
    grow(shop)
    configure(shop)
    expected, rows = expected_books(shop, "points")
    with hold_row(shop, "points", 1) as hold, shop.start("--run-once", "daily-points") as process:
        hold.reached(process)
        (end,) = wait_until(lambda: shop.sql("SELECT cursor FROM roundsman.lane WHERE lane = 0 AND cursor = range_to"),
                            what="the first lane's end")
        shop.sql("UPDATE roundsman.lane SET cursor = '1' WHERE lane = 0")
        hold.release()
        assert process.wait() == 1, process.log()
    assert "marking the run done" in process.log()
    only_run(shop, "running", attempt=1)
    shop.sql("UPDATE roundsman.lane SET cursor = %s WHERE lane = 0", *end)
    once(shop)
    check_books(shop, expected)
    only_run(shop, "done", rows)


def test_partial_requires_every_cursor_at_its_end(shop):
    """A run with leftovers is not resumed when it is partial: what its lanes have not come to would never be done."""
    grow(shop)
    configure(shop)
    with shop.hold("SELECT FROM shop.users WHERE id = 1234 FOR UPDATE"):
        with hold_row(shop, "points", 1) as hold, shop.start("--run-once", "daily-points") as process:
            hold.reached(process)
            wait_until(lambda: shop.sql("SELECT 1 FROM roundsman.lane WHERE lane = 0 AND cursor = range_to") and shop.leftovers(),
                       what="the first lane's end, and the leftover")
            shop.sql("UPDATE roundsman.lane SET cursor = '1' WHERE lane = 0")
            hold.release()
            assert process.wait() == 1, process.log()
    assert "marking the run done" in process.log()
    only_run(shop, "running", attempt=1)


def test_done_requires_that_nothing_is_left_over(shop):
    grow(shop)
    configure(shop)
    expected, rows = expected_books(shop, "points")
    with shop.hold("SELECT FROM shop.users WHERE id = 1234 FOR UPDATE"):
        result = once(shop, "points", status=10)
        assert "1234" in result.out
        expected.points[1234] -= 7
        check_books(shop, expected)
        only_run(shop, "partial", rows - 1)
        once(shop, "points", status=10)
        only_run(shop, "partial", rows - 1)
    once(shop)
    expected.points[1234] += 7
    check_books(shop, expected)
    only_run(shop, "done", rows)
    assert shop.leftovers() == []
