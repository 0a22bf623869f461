# SPDX-License-Identifier: PostgreSQL
"""How much of the server a run takes: paces, time to spare, and what makes it hold back until it is over."""

import contextlib
import os
import signal
import socket
import threading
import time

import pytest

from harness import YEARLY, wait_until
from wire import Proxy

POINTS = {"name": "points", "kind": "points", "schedule": YEARLY, "amount": 10, "lanes": 1}


def configure(shop, job=None, **groups):
    return shop.configure(jobs=[{**POINTS, **(job or {})}], **groups)


def expect(shop, expected):
    books = shop.books()
    assert books == expected, books.explain(expected)


def only_run(shop):
    (run,) = shop.runs()
    return run


def seconds(run):
    return (run["finished_at"] - run["started_at"]).total_seconds()


def slow_rows(shop, milliseconds):
    """Notes when each row was changed, which takes so long."""
    shop.sql("CREATE TABLE shop.record (place bigint GENERATED ALWAYS AS IDENTITY, txid bigint, id bigint, at timestamptz)")
    shop.sql("CREATE FUNCTION shop.before() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN"
             " INSERT INTO shop.record (txid, id, at) VALUES (txid_current(), NEW.id, clock_timestamp());"
             f" PERFORM pg_sleep({milliseconds / 1000}); RETURN NEW; END $$")
    shop.sql("CREATE TRIGGER before BEFORE UPDATE ON shop.users FOR EACH ROW EXECUTE FUNCTION shop.before()")


def few_users(shop, count):
    shop.sql("DELETE FROM shop.orders WHERE user_id > %s", count)
    shop.sql("DELETE FROM shop.users WHERE id > %s", count)
    shop.sql("ANALYZE shop.users")


# ---- Paces ----

@pytest.mark.parametrize("pace", ["gentle", "normal", "full"])
def test_every_pace_under_live_traffic(shop, pace):
    shop.populate(users=5000)
    shop.sql("UPDATE shop.users SET points = points + 1000000")
    shop.sql("ANALYZE shop.users")
    configure(shop, {"lanes": 2, "pace": pace})
    before = shop.books()
    with shop.traffic() as traffic:
        result = shop.roundsman("--run-once", "points")
        traffic.stop()
    assert result.status == 0, result
    expect(shop, before.with_points(10).with_taken(traffic.taken))


def test_pace_is_followed_and_can_be_set(shop):
    """Rests in proportion to the work: gently it takes three times as long, whatever a row takes here."""
    few_users(shop, 200)
    slow_rows(shop, 1)
    configure(shop, {"pace": "gentle"})
    before = shop.books()
    assert shop.roundsman("--run-once", "points").status == 0
    assert shop.roundsman("--run-once", "points", "--set", "pace=full").status == 0
    configure(shop, {"pace": "full"})
    assert shop.roundsman("--run-once", "points").status == 0
    gentle, override, full = shop.runs()
    assert seconds(gentle) > 2 * seconds(override), (gentle, override)
    assert seconds(gentle) > 2 * seconds(full), (gentle, full)
    expect(shop, before.with_points(30))
    result = shop.roundsman("--run-once", "points", "--set", "pace=fast")
    assert result.status == 2 and 'pace must be "gentle", "normal" or "full", not "fast"' in result.err, result


class LongEnds(Proxy):
    """The end of a lane's session takes its time. Notes how many others have ended meanwhile."""

    def __init__(self, shop):
        super().__init__(shop)
        self.gone, self.meanwhile = [], []

    def ended(self, link):
        before = len(self.gone)
        self.gone.append(link)
        if link is not self.links[0]:
            time.sleep(0.3)
            self.meanwhile.append(len(self.gone) - before - 1)


def test_below_full_pace_sessions_end_one_after_another(shop):
    """Two lanes', and the one that holds the job's lock, which is the last."""
    shop.populate(users=5000, items=1, orders=0)
    shop.sql("ANALYZE shop.users")
    with LongEnds(shop) as proxy:
        configure(shop, {"pace": "normal", "lanes": 4}, database={"conninfo": proxy.conninfo})
        result = shop.roundsman("--run-once", "points")
        assert result.status == 0, result
        wait_until(lambda: len(proxy.gone) == len(proxy.links) == len(proxy.meanwhile) + 1, what="the end of all sessions")
        assert proxy.meanwhile == [0, 0]


def test_a_slow_flush_is_no_reason_for_small_batches(shop):
    """A commit alone takes twice the time that a batch should: fewer rows would not make it quicker."""
    shop.sql("CREATE TABLE shop.commits (id bigint)")
    shop.sql("CREATE FUNCTION shop.commits() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
             " $$ BEGIN INSERT INTO shop.commits VALUES (1); PERFORM pg_sleep(0.05); RETURN NULL; END $$")
    shop.sql("CREATE CONSTRAINT TRIGGER commits AFTER UPDATE ON roundsman.lane DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
             " EXECUTE FUNCTION shop.commits()")
    configure(shop, {"pace": "normal"})
    assert shop.roundsman("--run-once", "points").status == 0
    assert shop.value("SELECT count(*) FROM shop.commits") <= 20


# ---- Time to spare ----

def test_a_run_is_spread_over_the_time_it_has(shop):
    shop.populate(users=4000)
    shop.sql("ANALYZE shop.users")
    configure(shop, {"lanes": 2, "batch_max": 100, "pace": "full", "finish_within": "3s"})
    before = shop.books()
    assert shop.roundsman("--run-once", "points").status == 0
    assert seconds(only_run(shop)) >= 2
    expect(shop, before.with_points(10))


def test_time_to_spare_follows_the_file(shop):
    """A run that rests for minutes is interrupted at once, and finished without delay when there is no time any more."""
    before = shop.books()
    configure(shop, {"finish_within": "1d", "batch_max": 10})
    with shop.start("--run-once", "points") as process:
        wait_until(lambda: shop.runs() and only_run(shop)["rows_done"] == 0 and shop.lanes()[0]["rows_done"] == 10,
                   what="the first batch")
        assert process.stop() == 11
    assert shop.lanes()[0]["rows_done"] == 10
    configure(shop)
    assert shop.roundsman("--run-once", "points").status == 0
    run = only_run(shop)
    assert (run["state"], run["rows_done"], run["attempt"]) == ("done", 1000, 2)
    expect(shop, before.with_points(10))


# ---- Who waits for us ----

def test_somebody_who_waits_for_us_makes_us_yield(shop):
    """A batch of 100 rows is slower than it was meant to be, and somebody waits for its first row: the rest after it is longer.

    The share that the pace allows a lane that is alone is a half, so it would be as long as the batch. With half of that, it is
    three times as long.
    """
    slow_rows(shop, 15)
    configure(shop, {"lock_timeout": "10ms", "batch_max": 100})

    def first_batch():
        return shop.sql("SELECT extract(epoch FROM max(at) - min(at))::float, max(at) FROM shop.record GROUP BY txid"
                        " ORDER BY min(place) LIMIT 1")

    def live():
        with shop.connect() as connection:
            connection.execute("UPDATE shop.users SET name = 'live' WHERE id = 1")

    with shop.start("--run-once", "points") as process:
        wait_until(lambda: shop.sql("SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                                    " AND application_name LIKE 'roundsman%' AND wait_event = 'PgSleep'"), what="the batch")
        thread = threading.Thread(target=live)
        thread.start()
        (lasted, end), = wait_until(lambda: len(first_batch()) == 1 and first_batch(), what="its commit")
        thread.join()
        start, = wait_until(lambda: shop.sql("SELECT min(at) FROM shop.record WHERE at > %s AND id > 100"
                                             " HAVING min(at) IS NOT NULL", end), what="the next batch")[0]
        assert process.stop() == 11
    assert (start - end).total_seconds() > 1.7 * lasted, (lasted, start - end)


# ---- What makes it hold back ----

def looks(shop, times=1):
    """Waits until the run has looked so many times at what holds it back."""
    seen = set()

    def more():
        seen.update(shop.sql("SELECT query_start FROM pg_stat_activity WHERE application_name LIKE 'roundsman%'"
                             " AND query ~ 'pg_stat_replication|pg_replication_slots'"))
        return len(seen) > times
    wait_until(more, what="the run to look again")


def held(shop, process, reason):
    """It says why it holds back, and does nothing meanwhile."""
    process.wait_for(f"holding back: {reason}")
    cursors = [lane["cursor"] for lane in shop.lanes()]
    books = shop.books()
    looks(shop)
    assert [lane["cursor"] for lane in shop.lanes()] == cursors
    expect(shop, books)


@contextlib.contextmanager
def slot(shop, megabytes):
    """A physical slot that nobody reads, which holds back so much WAL."""
    name = f"left_behind_{shop.name}"
    shop.sql("SELECT pg_create_physical_replication_slot(%s, true)", name)
    try:
        for _ in range(megabytes):
            shop.sql("SELECT pg_logical_emit_message(false, '', repeat('x', 1048576))")
        yield name
    finally:
        shop.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", name)


SLOTS = r"slots hold back \d+ MB of WAL \(max_slot_wal 2 MB\)"


def test_wal_that_a_slot_holds_back(shop):
    configure(shop, max_slot_wal="2MB")
    before = shop.books()
    with slot(shop, 3) as name, shop.start("--run-once", "points") as process:
        held(shop, process, SLOTS)
        assert shop.lanes()[0]["cursor"] is None
        shop.sql("SELECT pg_drop_replication_slot(%s)", name)
        process.wait_for("going on: what held it back is over")
        assert process.wait() == 0
    assert process.log().count("holding back") == 1
    expect(shop, before.with_points(10))


def test_a_limit_that_is_not_reached(shop):
    configure(shop, max_slot_wal="1GB")
    with slot(shop, 1):
        result = shop.roundsman("--run-once", "points")
    assert result.status == 0 and "holding back" not in result.err, result


def test_a_run_that_holds_back_is_interrupted_at_once(shop):
    configure(shop, max_slot_wal="2MB")
    before = shop.books()
    with slot(shop, 3), shop.start("--run-once", "points") as process:
        held(shop, process, SLOTS)
        assert process.stop() == 11
        assert "going on" not in process.log()
        assert only_run(shop)["state"] == "interrupted"
    expect(shop, before)
    assert shop.roundsman("--run-once", "points").status == 0
    expect(shop, before.with_points(10))


def test_the_daemon_says_what_it_is_held_back_by(shop, tmp_path):
    path = str(tmp_path / "notify")
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(path)
    notify.settimeout(20)
    configure(shop, {"schedule": "* * * * * *"}, max_slot_wal="2MB")

    def told(what):
        while what not in (text := notify.recv(4096).decode()):
            pass
        return text

    with notify, slot(shop, 3) as name, shop.start(env={"NOTIFY_SOCKET": path}) as daemon:
        status = told("held back")
        assert "points running (run 1, 0 %, held back: slots hold back" in status, status
        daemon.wait_for("holding back: " + SLOTS)
        shop.sql("SELECT pg_drop_replication_slot(%s)", name)
        daemon.wait_for("done: 1000 rows")
        while "held back" in told("STATUS="):
            pass
        assert daemon.stop() == 0


def test_a_signal_that_cannot_be_read_holds_back(shop):
    role = f"watch{os.getpid()}"
    shop.sql(f"CREATE ROLE {role} LOGIN IN ROLE roundsman")
    try:
        configure(shop, database={"conninfo": shop.conninfo(role)}, max_replica_lag="10s")
        before = shop.books()
        with shop.start("--run-once", "points") as process:
            held(shop, process, f"the lag of replicas cannot be read; GRANT pg_read_all_stats TO {role};")
            expect(shop, before)
            shop.sql(f"GRANT pg_read_all_stats TO {role}")
            process.wait_for("going on")
            assert process.wait() == 0
        expect(shop, before.with_points(10))
    finally:
        shop.sql(f"DROP ROLE {role}")


def test_a_server_that_does_not_answer_holds_back(shop):
    """The session that looks is cut off without noticing: the lanes' own are not, and yet nothing more is sent."""
    with Proxy(shop) as proxy:
        configure(shop, {"finish_within": "60s", "batch_max": 5}, max_slot_wal="1GB", database={"conninfo": proxy.conninfo})
        with shop.start("--run-once", "points") as process:
            wait_until(lambda: shop.lanes() and shop.lanes()[0]["cursor"], what="the first batch")
            proxy.links[0].go_deaf()
            process.wait_for("holding back: the WAL that slots hold back cannot be read: the server does not answer")
            process.signal(signal.SIGKILL)
            process.wait()


def test_the_lag_of_a_replica(own_shop):
    """A standby that stops replaying in the middle of a run."""
    shop = own_shop
    standby = shop.server.standby()
    try:
        shop.sql("GRANT pg_read_all_stats TO roundsman")

        def write():
            return shop.value("SELECT pg_current_wal_lsn() FROM pg_logical_emit_message(true, '', 'x')")

        def lag():
            write()  # without anything to replay, the server does not tell of a lag
            return shop.value("SELECT coalesce(max(extract(epoch FROM replay_lag)), 0)::float FROM pg_stat_replication") > 0.8

        with standby.connect() as replica:
            lsn = write()
            wait_until(lambda: replica.execute("SELECT pg_last_wal_replay_lsn() >= %s", [lsn]).fetchone()[0], what="its replay")
            configure(shop, {"batch_max": 10, "finish_within": "100s"}, max_replica_lag="500ms")
            before = shop.books()
            with shop.start("--run-once", "points") as process:
                wait_until(lambda: shop.lanes() and shop.lanes()[0]["cursor"], what="the first batch")
                replica.execute("SELECT pg_wal_replay_pause()")
                wait_until(lag, what="the lag")
                held(shop, process, r"replica lag \S+ \(max_replica_lag 500ms\)")
                done = shop.lanes()[0]["rows_done"]
                assert 0 < done < 1000
                replica.execute("SELECT pg_wal_replay_resume()")
                wait_until(lambda: write() and "going on" in process.log(), what="the end of the lag")
                wait_until(lambda: shop.lanes()[0]["rows_done"] > done, what="the next batch")
                assert process.stop() == 11
            configure(shop)
            assert shop.roundsman("--run-once", "points").status == 0
            expect(shop, before.with_points(10))
    finally:
        standby.remove()
