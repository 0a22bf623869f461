# SPDX-License-Identifier: PostgreSQL
"""Canceling orders: what is locked and for how long, what comes back, what is left over, and whose orders are left alone.

The order of events is forced: a gate is a trigger (or an operator) at which a session of the program waits, in the middle
of a statement, until the test opens it.
"""

import contextlib
import datetime
import signal
import zoneinfo

import pytest

from harness import JOBS, TOP, YEARLY, Shop, wait_until

NAME = "cancel-unpaid"


def job(**settings):
    return {"name": NAME, "kind": "cancel", "schedule": YEARLY, "older_than": "30m", **settings}


def once(shop, *arguments, status=0):
    result = shop.roundsman("--run-once", NAME, *arguments)
    assert result.status == status, result
    return result


@pytest.fixture
def small(shop):
    """Five users with 1000 points, six items of which 50 are in stock, and no orders."""
    shop.sql("TRUNCATE shop.users, shop.menu_items, shop.orders, shop.order_items RESTART IDENTITY")
    shop.sql("INSERT INTO shop.users (name, points) SELECT 'user ' || n, 1000 FROM generate_series(1, 5) AS n")
    shop.sql("INSERT INTO shop.menu_items (name, price, stock) SELECT 'item ' || n, 100, 50 FROM generate_series(1, 6) AS n")
    shop.configure(jobs=[job()])
    return shop


def order(shop, user=1, lines=((1, 1),), points=0, status="PAYING", age="1 hour"):
    """Makes an order; gives its key."""
    key = shop.value("INSERT INTO shop.orders (user_id, status, points_spent, last_modified_at)"
                     " VALUES (%s, %s, %s, now() - %s::interval) RETURNING id", user, status, points, age)
    for item, quantity in lines:
        shop.sql("INSERT INTO shop.order_items (order_id, item_id, quantity) VALUES (%s, %s, %s)", key, item, quantity)
    return key


def status_of(shop, key):
    return shop.value("SELECT status FROM shop.orders WHERE id = %s", key)


def agree(shop, expected):
    actual = shop.books()
    assert actual == expected, actual.explain(expected)


class Gate:
    """Sessions of the program wait at it until it is opened. Our advisory locks: 1 says that one is there, 2 keeps it there."""

    WAIT = ("PERFORM pg_advisory_xact_lock_shared(1);"
            " WHILE NOT pg_try_advisory_xact_lock_shared(2) LOOP PERFORM pg_sleep(0.005); END LOOP;")

    def __init__(self, shop):
        self.shop = shop
        self.connection = shop.connect()
        self.connection.execute("SELECT pg_advisory_lock(2)")

    def reached(self):
        wait_until(lambda: self.shop.value(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 1 AND objsubid = 1 AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"), what="the gate")

    def open(self):
        self.connection.close()


@contextlib.contextmanager
def gate(shop, table, when="true", timing="BEFORE UPDATE"):
    """A gate at a table's trigger, for the program's role alone."""
    shop.sql(f"""
        CREATE OR REPLACE FUNCTION public.wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF session_user = 'roundsman' THEN
                {Gate.WAIT}
            END IF;
            RETURN NEW;
        END $$""")
    shop.sql(f"CREATE TRIGGER a_gate {timing} ON {table} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION public.wait_at_gate()")
    held = Gate(shop)
    try:
        yield held
    finally:
        held.open()


@contextlib.contextmanager
def at_gate(shop, table, when="true", arguments=("--run-once", NAME)):
    """A run that has come to the gate: gives it and the gate."""
    with gate(shop, table, when) as held, shop.start(*arguments) as run:
        try:
            held.reached()
            yield run, held
        finally:
            held.open()


def locked(shop, table):
    """The keys of the rows that another session would have to wait for."""
    with shop.connect(autocommit=False) as other:
        free = {row[0] for row in other.execute(f"SELECT id FROM {table} FOR UPDATE SKIP LOCKED")}
        other.rollback()
    return {row[0] for row in shop.sql(f"SELECT id FROM {table}")} - free


def modes(shop, table):
    """How rows are locked: (id, modes)."""
    shop.sql("CREATE EXTENSION IF NOT EXISTS pgrowlocks")
    return {(key, mode) for key, found in shop.sql(
        f"SELECT t.id, l.modes FROM {table} AS t JOIN pgrowlocks('{table}') AS l ON l.locked_row = t.ctid") for mode in found}


# ---- Live traffic comes first ----

def test_only_the_order_and_what_it_took_is_locked(small):
    stale = [order(small, user=user, lines=((user, 2), (6, 1)), points=10) for user in (1, 2, 3)]
    fresh = order(small, user=1, lines=((4, 1),), age="1 minute")
    # The status is changed last: all that an order's transaction ever locks is locked then.
    with at_gate(small, "shop.orders") as (run, held):
        assert locked(small, "shop.orders") == {stale[0]}
        assert locked(small, "shop.order_items") == set()
        assert locked(small, "shop.menu_items") == {1, 6}
        assert locked(small, "shop.users") == {1}
        found = {mode for table in ("orders", "menu_items", "users", "order_items") for _, mode in modes(small, f"shop.{table}")}
        assert found and found <= {"For No Key Update", "No Key Update"}
        # What a live shop does meanwhile: foreign keys of a new order and of new lines, all on locked rows.
        with small.connect() as live:
            live.execute("SET lock_timeout = '2s'")
            new = live.execute("INSERT INTO shop.orders (user_id, status) VALUES (1, 'CREATED') RETURNING id").fetchone()[0]
            live.execute("INSERT INTO shop.order_items (order_id, item_id, quantity) VALUES (%s, 1, 1), (%s, 6, 1)",
                         [new, new])
            live.execute("INSERT INTO shop.order_items (order_id, item_id, quantity) VALUES (%s, 2, 1)", [stale[0]])
            live.execute("UPDATE shop.orders SET last_modified_at = now() WHERE id = %s", [fresh])
            assert status_of(small, stale[0]) == "PAYING"
        held.open()
        assert run.wait() == 0
    assert [status_of(small, key) for key in (*stale, fresh, new)] == ["CANCELED"] * 3 + ["PAYING", "CREATED"]


def test_items_are_locked_no_stronger_while_they_wait_for_each_other(small):
    """Between the lock of an order's items and their change there is only FOR NO KEY UPDATE."""
    key = order(small, lines=((1, 1), (2, 1)))
    with at_gate(small, "shop.menu_items", "OLD.id = 2") as (run, held):
        found = modes(small, "shop.menu_items")
        assert (2, "For No Key Update") in found
        assert {mode for _, mode in found} <= {"For No Key Update", "No Key Update"}
        assert modes(small, "shop.orders") == {(key, "For No Key Update")}
        held.open()
        assert run.wait() == 0


def test_orders_for_a_user_in_a_batch_of_points_do_not_wait(shop):
    shop.configure(jobs=JOBS)
    with at_gate(shop, "shop.users", "OLD.id = 5", ("--run-once", "daily-points")) as (run, held):
        assert {1, 2, 3, 4} <= locked(shop, "shop.users")
        assert {mode for _, mode in modes(shop, "shop.users")} <= {"For No Key Update", "No Key Update"}
        with shop.connect() as live:
            live.execute("SET lock_timeout = '2s'")
            for user in (1, 4, 5, 1000):
                live.execute("INSERT INTO shop.orders (user_id, status) VALUES (%s, 'CREATED')", [user])
        held.open()
        assert run.wait() == 0


def test_a_stopped_process_leaves_no_transaction_open(small):
    """Every transaction was sent whole: it ends without us."""
    stale = [order(small, points=1) for _ in range(10)]
    expected = small.books().with_canceled(small, stale)
    ours = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'roundsman'"
    with at_gate(small, "shop.menu_items") as (run, held):
        run.signal(signal.SIGSTOP)
        held.open()
        wait_until(lambda: small.value(ours + " AND state = 'active'") == 0, what="the server's part of it")
        assert small.value(ours) > 0
        assert small.value(ours + " AND (state <> 'idle' OR backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)") == 0
        assert locked(small, "shop.orders") == locked(small, "shop.menu_items") == locked(small, "shop.users") == set()
        run.signal(signal.SIGCONT)
        assert run.wait() == 0
    agree(small, expected)


@pytest.mark.parametrize("moment", ["BEFORE", "AFTER"])  # what triggers see first is verified, in other statements
def test_every_order_in_its_own_transaction_in_the_order_of_the_shops_locks(small, moment):
    """Changes are logged by triggers: by whom, when, in which transaction, with which kind of commit."""
    small.sql("""
        CREATE TABLE public.change (n bigint GENERATED ALWAYS AS IDENTITY, xid xid8, place text, key bigint, synchronous text);
        CREATE FUNCTION public.log_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
        BEGIN
            INSERT INTO public.change (xid, place, key, synchronous)
                VALUES (pg_current_xact_id(), TG_TABLE_NAME, NEW.id, current_setting('synchronous_commit'));
            RETURN NEW;
        END $$;
        CREATE TRIGGER log MOMENT UPDATE ON shop.users FOR EACH ROW EXECUTE FUNCTION public.log_change();
        CREATE TRIGGER log MOMENT UPDATE ON shop.menu_items FOR EACH ROW EXECUTE FUNCTION public.log_change();
        CREATE TRIGGER log MOMENT UPDATE ON shop.orders FOR EACH ROW EXECUTE FUNCTION public.log_change()""".replace("MOMENT", moment))
    # Lines in another order than the items' keys; user 2's physical row lies behind the others.
    stale = [order(small, user=user, lines=((5, 1), (2, 1), (6, 2), (2, 3)), points=7) for user in (3, 1, 2, 3)]
    expected = small.books().with_canceled(small, stale)
    once(small)
    agree(small, expected)
    by_transaction = {}
    for xid, place, key, synchronous in small.sql("SELECT xid::text, place, key, synchronous FROM public.change ORDER BY n"):
        by_transaction.setdefault(xid, []).append((place, key))
        assert synchronous == "off"
    assert len(by_transaction) == 4
    owners = dict(small.sql("SELECT id, user_id FROM shop.orders"))
    seen = []
    for changes in by_transaction.values():
        (canceled,) = [key for place, key in changes if place == "orders"]
        seen.append(canceled)
        assert [change for change in changes if change[0] != "orders"] == [
            ("menu_items", 2), ("menu_items", 5), ("menu_items", 6), ("users", owners[canceled])]
    assert sorted(seen) == stale
    assert small.value("SELECT count(DISTINCT xmin::text) FROM shop.orders WHERE status = 'CANCELED'") == 4


def test_what_says_that_a_run_is_done_is_synchronous(small):
    small.sql("""
        CREATE TABLE public.told (state text, synchronous text);
        CREATE FUNCTION public.tell() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
        BEGIN INSERT INTO public.told VALUES (NEW.state, current_setting('synchronous_commit')); RETURN NEW; END $$;
        CREATE TRIGGER tell BEFORE UPDATE ON roundsman.run FOR EACH ROW EXECUTE FUNCTION public.tell()""")
    small.sql(f'ALTER DATABASE "{small.name}" SET synchronous_commit = off')
    order(small)
    once(small)
    told = small.sql("SELECT state, synchronous FROM public.told")
    assert ("done", "on") in told and ("done", "off") not in told


def test_items_are_locked_in_the_order_of_their_keys(small):
    """The first item is held by live traffic: none of the others may be locked while we wait for it."""
    small.configure(jobs=[job(lock_timeout="500ms")])
    # Nothing is in that order by itself: not the rows, not the lines, and not the sums by item, which are hashed.
    small.sql(f'ALTER DATABASE "{small.name}" SET enable_sort = off')
    small.sql(f'ALTER DATABASE "{small.name}" SET jit = off')  # such plans look dear enough to be compiled
    for item in (5, 4, 3, 2, 1):
        small.sql("UPDATE shop.menu_items SET id = id + 100 WHERE id = %s", item)
    key = order(small, lines=((105, 1), (6, 1), (103, 1), (101, 1)))
    expected = small.books().with_canceled(small, [key])
    with small.hold("UPDATE shop.menu_items SET stock = stock - 7 WHERE id = 6") as live, small.start("--run-once", NAME) as run:
        wait_until(lambda: small.value("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                                       " AND usename = 'roundsman' AND wait_event_type = 'Lock'"), what="the wait for item 6")
        assert locked(small, "shop.menu_items") == {6}
        live.commit()
        assert run.wait() == 0
    expected.stock[6] -= 7
    agree(small, expected)


# ---- Orders that change under a run ----

CHANGES = {
    "paid": ("UPDATE shop.orders SET status = 'PAID', last_modified_at = now() WHERE id = %s", "PAID"),
    "paid without touching": ("UPDATE shop.orders SET status = 'PAID' WHERE id = %s", "PAID"),
    "touched": ("UPDATE shop.orders SET last_modified_at = now() WHERE id = %s", "PAYING"),
    "canceled": ("UPDATE shop.orders SET status = 'CANCELED', last_modified_at = now() WHERE id = %s", "CANCELED"),
    "deleted": ("DELETE FROM shop.orders WHERE id = %s", None),
}


@pytest.mark.parametrize("change, status", CHANGES.values(), ids=CHANGES.keys())
def test_changed_between_the_scan_and_its_turn(small, change, status):
    first, second, third = (order(small, user=user, lines=((user, 2),), points=5) for user in (1, 2, 3))
    expected = small.books().with_canceled(small, [first, third])
    with at_gate(small, "shop.orders", f"OLD.id = {first} AND NEW.status = 'CANCELED'") as (run, held):  # all three are scanned: they are on one page
        small.sql(change, second)
        held.open()
        assert run.wait() == 0
    if status is None:
        del expected.status[second]
    else:
        expected.status[second] = status
    agree(small, expected)
    (row,) = small.runs()
    assert (row["state"], row["rows_done"], row["rows_skipped"]) == ("done", 2, 1)
    assert small.leftovers() == []


def test_lines_edited_between_the_scan_and_the_lock(small):
    first, second = order(small, user=1, lines=((1, 1),)), order(small, user=2, lines=((2, 2), (3, 3)))
    with at_gate(small, "shop.orders", f"OLD.id = {first} AND NEW.status = 'CANCELED'") as (run, held):
        # The customer takes five of item 2 instead of two, none of item 3, and one of item 4. The order looks as old.
        small.sql("UPDATE shop.order_items SET quantity = 5 WHERE order_id = %s AND item_id = 2", second)
        small.sql("DELETE FROM shop.order_items WHERE order_id = %s AND item_id = 3", second)
        small.sql("INSERT INTO shop.order_items (order_id, item_id, quantity) VALUES (%s, 4, 1)", second)
        held.open()
        assert run.wait() == 0
    assert small.books().stock == {1: 51, 2: 55, 3: 50, 4: 51, 5: 50, 6: 50}
    assert small.books().status == {first: "CANCELED", second: "CANCELED"}


@pytest.fixture
def slow_lock(small):
    """An order's lock waits at a gate after its statement has begun (its snapshot is taken) and before the row is locked.

    Statuses are of a type whose = is ours: where the program compares one with HELD in a statement that locks, we are there.
    """
    small.sql(f"""
        CREATE TYPE shop.state AS ENUM ('PAYING', 'HELD', 'PAID', 'CANCELED');
        ALTER TABLE shop.orders DROP CONSTRAINT orders_status_check;
        DROP INDEX shop.orders_unfinished;
        ALTER TABLE shop.orders ALTER status DROP DEFAULT, ALTER status TYPE shop.state USING status::shop.state;
        CREATE INDEX ON shop.orders (last_modified_at, id);
        CREATE FUNCTION shop.same(a shop.state, b shop.state) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
        BEGIN
            IF a::text = 'HELD' AND current_query() LIKE '%FOR NO KEY UPDATE OF t SKIP LOCKED%' THEN
                {Gate.WAIT}
            END IF;
            RETURN a::text = b::text;
        END $$;
        CREATE OPERATOR shop.= (LEFTARG = shop.state, RIGHTARG = shop.state, FUNCTION = shop.same);
        ANALYZE shop.orders""")
    small.configure(jobs=[job(statuses=["PAYING", "HELD"])])
    held = Gate(small)
    yield small, held
    held.open()


@contextlib.contextmanager
def at_slow_lock(small, held):
    with small.start("--run-once", NAME) as run:
        try:
            held.reached()
            yield run
        finally:
            held.open()


def test_lines_edited_between_the_statements_start_and_the_lock(slow_lock):
    small, held = slow_lock
    key = order(small, user=2, lines=((2, 2), (3, 3)), status="HELD")
    with at_slow_lock(small, held) as run:
        assert locked(small, "shop.orders") == set()
        small.sql("UPDATE shop.order_items SET quantity = 5 WHERE order_id = %s AND item_id = 2", key)
        small.sql("DELETE FROM shop.order_items WHERE order_id = %s AND item_id = 3", key)
        small.sql("INSERT INTO shop.order_items (order_id, item_id, quantity) VALUES (%s, 4, 1)", key)
        held.open()
        assert run.wait() == 0, run.log()
    assert small.books().stock == {1: 50, 2: 55, 3: 50, 4: 51, 5: 50, 6: 50}
    assert small.books().status == {key: "CANCELED"}


@pytest.mark.parametrize("change, status", CHANGES.values(), ids=CHANGES.keys())
def test_changed_between_the_statements_start_and_the_lock(slow_lock, change, status):
    small, held = slow_lock
    key = order(small, user=2, lines=((2, 2), (3, 3)), points=9, status="HELD")
    expected = small.books()
    with at_slow_lock(small, held) as run:
        small.sql(change, key)
        held.open()
        assert run.wait() == 0, run.log()
    expected.status = {} if status is None else {key: "HELD" if status == "PAYING" else status}
    agree(small, expected)
    assert small.runs()[0]["rows_done"] == 0
    assert small.leftovers() == []


def test_a_payment_in_flight_wins(small):
    """Locked by the payment when its turn comes, paid before the run's end: left over for a moment, and never canceled."""
    first, second = order(small, user=1, lines=((1, 1),), points=3), order(small, user=2, lines=((2, 2),), points=3)
    expected = small.books().with_canceled(small, [first])
    with small.hold("UPDATE shop.orders SET status = 'PAID', last_modified_at = now() WHERE id = %s", second) as payment:
        result = once(small, status=10)
        assert f"key {second}" in result.out + result.err
        payment.commit()
    assert [row["state"] for row in small.runs()] == ["partial"]
    once(small)
    expected.status[second] = "PAID"
    agree(small, expected)
    assert [(row["state"], row["rows_done"]) for row in small.runs()] == [("done", 1)]
    assert small.leftovers() == []


# ---- Orders that cannot be canceled, for now ----

def attempts(shop):
    return {row["key"]: (row["reason"], row["attempts"]) for row in shop.leftovers()}


SWALLOW = """
    CREATE FUNCTION public.swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
    CREATE TRIGGER swallow BEFORE UPDATE ON {table} FOR EACH ROW WHEN (OLD.id = 2) EXECUTE FUNCTION public.swallow()"""
MEND_TRIGGER = "DROP FUNCTION public.swallow() CASCADE"

# What is wrong with the order of user 2 for two of item 2, what a person is told, how it is mended, and what comes back then.
BROKEN = {
    "item gone": (
        "ALTER TABLE shop.order_items DROP CONSTRAINT order_items_item_id_fkey; DELETE FROM shop.menu_items WHERE id = 2",
        r"item", "INSERT INTO shop.menu_items (id, name, price, stock) VALUES (2, 'item 2', 100, 50)"),
    "user gone": (
        "ALTER TABLE shop.orders DROP CONSTRAINT orders_user_id_fkey; DELETE FROM shop.users WHERE id = 2",
        r"user", "INSERT INTO shop.users (id, name, points) VALUES (2, 'user 2', 1000)"),
    "quantity NULL": (
        # A domain's NOT NULL has a hole, which the manual describes; the catalog still says NOT NULL.
        "CREATE DOMAIN shop.amount AS integer NOT NULL; ALTER TABLE shop.order_items ALTER quantity TYPE shop.amount,"
        " ALTER quantity DROP NOT NULL;"
        "UPDATE shop.order_items SET quantity = (SELECT quantity FROM shop.order_items WHERE false) WHERE item_id = 2",
        r"quantity", "UPDATE shop.order_items SET quantity = 2 WHERE quantity IS NULL"),
    "points_spent NULL": (
        "CREATE DOMAIN shop.amount AS bigint NOT NULL; ALTER TABLE shop.orders ALTER points_spent TYPE shop.amount,"
        " ALTER points_spent DROP NOT NULL;"
        "UPDATE shop.orders SET points_spent = (SELECT points_spent FROM shop.orders WHERE false) WHERE user_id = 2",
        r"points", "UPDATE shop.orders SET points_spent = 5 WHERE points_spent IS NULL"),
    "stock NULL": (
        "CREATE DOMAIN shop.amount AS integer NOT NULL; ALTER TABLE shop.menu_items ALTER stock DROP DEFAULT,"
        " ALTER stock TYPE shop.amount, ALTER stock DROP NOT NULL;"
        "UPDATE shop.menu_items SET stock = (SELECT stock FROM shop.menu_items WHERE false) WHERE id = 2",
        r"does not allow null", "UPDATE shop.menu_items SET stock = 50 WHERE id = 2"),
    "points NULL": (
        "CREATE DOMAIN shop.amount AS bigint NOT NULL; ALTER TABLE shop.users ALTER points DROP DEFAULT,"
        " ALTER points TYPE shop.amount, ALTER points DROP NOT NULL;"
        "UPDATE shop.users SET points = (SELECT points FROM shop.users WHERE false) WHERE id = 2",
        r"does not allow null", "UPDATE shop.users SET points = 1000 WHERE id = 2"),
    "stock swallowed": (
        SWALLOW.format(body="RETURN NULL;", table="shop.menu_items"), r"stock", MEND_TRIGGER),
    "points swallowed": (
        SWALLOW.format(body="RETURN NULL;", table="shop.users"), r"points", MEND_TRIGGER),
    "status swallowed": (
        SWALLOW.format(body="RETURN NULL;", table="shop.orders"), r"status", MEND_TRIGGER),
    "stock put back": (
        SWALLOW.format(body="NEW.stock := OLD.stock; RETURN NEW;", table="shop.menu_items"), r"stock", MEND_TRIGGER),
    "points put back": (
        SWALLOW.format(body="NEW.points := OLD.points; RETURN NEW;", table="shop.users"), r"points", MEND_TRIGGER),
    "status put back": (
        SWALLOW.format(body="NEW.status := OLD.status; RETURN NEW;", table="shop.orders"), r"status", MEND_TRIGGER),
    "an error of a trigger": (
        SWALLOW.format(body="RAISE 'the till is closed';", table="shop.orders"), r"the till is closed", MEND_TRIGGER),
    "an error in a trigger": (
        # Of a class that elsewhere says that no order could be canceled.
        SWALLOW.format(body="PERFORM FROM no_such_table; RETURN NEW;", table="shop.menu_items"), r"no_such_table",
        MEND_TRIGGER),
    "a constraint": (
        "ALTER TABLE shop.menu_items ADD CONSTRAINT shelf CHECK (id <> 2 OR stock <= 50)", r"shelf",
        "ALTER TABLE shop.menu_items DROP CONSTRAINT shelf"),
    "a deferred constraint": (
        # The error comes with the commit.
        "CREATE FUNCTION public.swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'too late'; END $$;"
        "CREATE CONSTRAINT TRIGGER swallow AFTER UPDATE ON shop.orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
        " WHEN (OLD.id = 2) EXECUTE FUNCTION public.swallow()", r"too late", MEND_TRIGGER),
}


@pytest.mark.parametrize("breakage, told, mend", BROKEN.values(), ids=BROKEN.keys())
def test_an_order_that_fails_is_left_over_and_nothing_of_it_is_restored(small, breakage, told, mend):
    first, second, third = (order(small, user=user, lines=((1, 1), (user, 2), (6, 1)), points=5) for user in (1, 2, 3))
    small.sql(breakage)
    assert second == 2  # what the triggers ask for
    expected = small.books().with_canceled(small, [first, third])
    result = once(small, status=10)
    agree(small, expected)
    (row,) = small.runs()
    assert (row["state"], row["rows_done"]) == ("partial", 2)
    (left,) = small.leftovers()
    assert (left["key"], left["reason"]) == (str(second), "failed")
    assert told in left["error"], left
    assert f"key {second}, failed: " in result.out and told in result.out
    assert left["attempts"] == 2  # once more at the run's end, by the other path
    small.sql(mend)
    expected = small.books().with_canceled(small, [second])
    once(small)
    agree(small, expected)
    assert small.leftovers() == []
    assert [(row["state"], row["rows_done"]) for row in small.runs()] == [("done", 3)]


def test_a_locked_order_is_left_over_and_stalls_nothing(small):
    """A daemon, a round each second: the first leaves the order over, later ones neither repeat that nor wait."""
    small.configure(jobs=[job(schedule="* * * * * *")])
    first, second = order(small, points=1), order(small, user=2, lines=((2, 2),), points=1)
    expected = small.books().with_canceled(small, [first])
    with small.start() as daemon:
        with small.hold("SELECT FROM shop.orders WHERE id = %s FOR UPDATE", second):
            wait_until(lambda: len(small.runs()) >= 3, what="three runs")
            runs = small.runs()
            assert runs[0]["state"] == "partial"
            assert {row["state"] for row in runs[1:-1]} == {"done"}
            assert {(row["run_id"], row["key"], row["reason"], row["sqlstate"]) for row in small.leftovers()} == {
                (runs[0]["id"], str(second), "locked", "55P03")}
            assert "timeout" not in small.leftovers()[0]["error"]  # it was passed by, not waited for
            agree(small, expected)
        wait_until(lambda: small.runs()[0]["state"] == "done", what="the last leftover")
        assert daemon.stop() == 0
    expected = expected.with_canceled(small, [second])
    agree(small, expected)
    assert small.leftovers() == []
    assert sum(row["rows_done"] for row in small.runs()) == 2


def test_a_leftover_is_put_off_twice_as_long_each_time(small):
    small.configure(jobs=[job(retry_delay="10s")])
    order(small)
    with small.hold("SELECT FROM shop.orders FOR UPDATE"):
        for attempt in (2, 3, 4):  # the first two in the first command: once more at the end of the run
            begun = small.value("SELECT clock_timestamp()")
            once(small, status=10)
            (left,) = small.leftovers()
            assert left["attempts"] == attempt
            delay = (left["next_attempt"] - begun).total_seconds()
            assert 10 * 2 ** (attempt - 1) <= delay < 10 * 2 ** (attempt - 1) + 10


def test_an_item_that_live_traffic_holds_costs_one_order_a_lock_timeout(small):
    small.configure(jobs=[job(lock_timeout="20ms")])
    stale = [order(small, user=user, lines=((user, 2),), points=5) for user in (1, 2, 3)]
    expected = small.books().with_canceled(small, [stale[0], stale[2]])
    with small.hold("UPDATE shop.menu_items SET stock = stock - 1 WHERE id = 2") as live:
        once(small, status=10)
        agree(small, expected)
        assert locked(small, "shop.orders") == set()
        assert [(row["key"], row["reason"], row["sqlstate"]) for row in small.leftovers()] == [(str(stale[1]), "locked", "55P03")]
        live.commit()
    expected.stock[2] -= 1
    expected = expected.with_canceled(small, [stale[1]])
    once(small)
    agree(small, expected)


def test_a_retried_order_gives_way_just_as_soon(small):
    """The second attempt, too, has its lock_timeout: a deadlock with live traffic is never live traffic's loss."""
    small.configure(jobs=[job(lock_timeout="50ms")])
    key = order(small, lines=((2, 1),))
    with small.hold("SELECT FROM shop.menu_items WHERE id = 2 FOR UPDATE"):
        once(small, status=10)
        longest = 0.0
        with small.start("--run-once", NAME) as run:

            def ended():
                nonlocal longest
                for (waiting,) in small.sql("SELECT extract(epoch FROM clock_timestamp() - query_start)::float"
                                            " FROM pg_stat_activity WHERE datname = current_database()"
                                            " AND usename = 'roundsman' AND wait_event_type = 'Lock'"):
                    longest = max(longest, waiting)
                return run.popen.poll() is not None
            wait_until(ended, what="the retry's end")
            assert run.wait() == 10
        assert longest < 0.6
    assert attempts(small)[str(key)][0] == "locked"
    once(small)
    assert status_of(small, key) == "CANCELED"


def test_an_order_paid_while_it_was_left_over_is_no_leftover_any_more(small):
    key = order(small, points=3)
    expected = small.books()
    with small.hold("SELECT FROM shop.orders FOR UPDATE"):
        once(small, status=10)
    small.sql("UPDATE shop.orders SET status = 'PAID', last_modified_at = now() WHERE id = %s", key)
    expected.status[key] = "PAID"
    result = once(small)
    agree(small, expected)
    assert small.leftovers() == []
    assert [(row["state"], row["rows_done"]) for row in small.runs()] == [("done", 0)], result


# ---- Settings ----

def test_unpaid_statuses_only_change_their_state(small):
    small.configure(jobs=[job(unpaid_statuses=["CREATED"])])
    taken = order(small, user=1, lines=((1, 2),), points=5)
    cart = order(small, user=2, lines=((2, 2),), points=5, status="CREATED")
    young = order(small, user=2, lines=((2, 2),), status="CREATED", age="1 minute")
    expected = small.books().with_canceled(small, [taken])
    expected.status[cart] = "CANCELED"
    once(small)
    agree(small, expected)
    assert status_of(small, young) == "CREATED"
    assert small.runs()[0]["rows_done"] == 2


def test_only_unpaid_statuses(small):
    small.configure(jobs=[job(statuses=[], unpaid_statuses=["CREATED"])])
    taken, cart = order(small, points=5), order(small, points=5, status="CREATED")
    expected = small.books()
    expected.status[cart] = "CANCELED"
    once(small)
    agree(small, expected)
    assert status_of(small, taken) == "PAYING"


def test_several_statuses_and_a_new_one_of_ones_own(small):
    small.sql("ALTER TABLE shop.orders DROP CONSTRAINT orders_status_check")
    small.configure(jobs=[job(statuses=["PAYING", "it's \\ waiting"], canceled="timed \"out\"")])
    stale = [order(small, lines=((1, 1),), points=1), order(small, lines=((2, 1),), points=2, status="it's \\ waiting")]
    other = order(small, status="its waiting")
    expected = small.books().with_canceled(small, stale)
    expected.status.update((key, 'timed "out"') for key in stale)
    once(small)
    agree(small, expected)
    assert status_of(small, other) == "its waiting"


@pytest.mark.parametrize("kind", ["smallint", "bigint"])
def test_integer_statuses(small, kind):
    small.sql("ALTER TABLE shop.orders DROP CONSTRAINT orders_status_check; DROP INDEX shop.orders_unfinished")
    small.sql(f"ALTER TABLE shop.orders ALTER status DROP DEFAULT, ALTER status TYPE {kind} USING length(status);"
              "CREATE INDEX ON shop.orders (last_modified_at) WHERE status IN (1, 2)")
    small.configure(jobs=[job(statuses=[1], unpaid_statuses=[2], canceled=-9)])
    taken, cart, paid = (order(small, user=n, lines=((n, 1),), points=n, status=n) for n in (1, 2, 3))
    expected = small.books().with_canceled(small, [taken])
    expected.status = {taken: -9, cart: -9, paid: 3}
    once(small)
    agree(small, expected)


def test_a_database_of_another_encoding(server, tmp_path):
    """The file is UTF-8; names, statuses and keys of a database that is not are the same all the same."""
    name = "latin1"
    with server.connect() as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING LATIN1 LOCALE 'C'")
    server.psql(name, "-f", TOP / "sql" / "shop.sql", "-f", TOP / "sql" / "role.sql")
    shop = Shop(server, name, tmp_path)
    shop.sql("ALTER TABLE shop.orders DROP CONSTRAINT orders_status_check")
    shop.sql("INSERT INTO shop.users (name) VALUES ('Jürgen')")
    shop.sql("INSERT INTO shop.orders (user_id, status, last_modified_at)"
             " SELECT id, 'für später', now() - interval '1 hour' FROM shop.users")
    shop.sql("CREATE INDEX ON shop.orders (last_modified_at, id) WHERE status = 'für später'")
    shop.sql("CREATE INDEX ON shop.order_items (order_id); ALTER TABLE shop.orders RENAME TO aufträge")
    shop.configure(jobs=[{**JOBS[2], "statuses": ["für später"]}], tables={"orders": {"table": "shop.aufträge"}})
    shop.install()
    done = shop.roundsman("--run-once", "cancel-unpaid")
    assert done.status == 0 and "1 row" in done.out, done
    assert shop.value("SELECT status FROM shop.aufträge") == "CANCELED"
    shop.close()
    server.drop_database(name)


def test_enum_statuses(small):
    small.sql("""
        CREATE TYPE shop.state AS ENUM ('CREATED', 'PAYING', 'PAID', 'CANCELED');
        ALTER TABLE shop.orders DROP CONSTRAINT orders_status_check;
        DROP INDEX shop.orders_unfinished;
        ALTER TABLE shop.orders ALTER status DROP DEFAULT, ALTER status TYPE shop.state USING status::shop.state;
        CREATE INDEX ON shop.orders (last_modified_at, id) WHERE status = 'PAYING'""")
    key, paid = order(small, points=4), order(small, status="PAID")
    expected = small.books().with_canceled(small, [key])
    once(small)
    agree(small, expected)
    assert status_of(small, paid) == "PAID"


def test_a_shop_without_points(small):
    small.sql("ALTER TABLE shop.orders DROP COLUMN points_spent")
    small.sql("ALTER TABLE shop.orders DROP COLUMN user_id; REVOKE ALL ON shop.users FROM roundsman")
    small.configure(jobs=[job()], tables={"orders": {"points_spent": ""}})
    key = small.value("INSERT INTO shop.orders (status, last_modified_at) VALUES ('PAYING', now() - interval '1 h') RETURNING id")
    small.sql("INSERT INTO shop.order_items (order_id, item_id, quantity) VALUES (%s, 3, 4)", key)
    expected = small.books()
    expected.stock[3] += 4
    expected.status[key] = "CANCELED"
    once(small)
    agree(small, expected)


def test_tables_without_touched(small):
    small.sql("ALTER TABLE shop.users DROP COLUMN last_modified_at; ALTER TABLE shop.menu_items DROP COLUMN last_modified_at")
    small.configure(jobs=[job()], tables={"users": {"touched": ""}, "items": {"touched": ""}})
    expected = small.books().with_canceled(small, [order(small, points=3)])
    once(small)
    agree(small, expected)


def test_touched_is_the_databases_now_on_every_row_changed(small):
    small.sql("UPDATE shop.users SET last_modified_at = now() - interval '1 day';"
              "UPDATE shop.menu_items SET last_modified_at = now() - interval '1 day'")
    order(small, user=2, lines=((3, 1),), points=1)
    before = small.value("SELECT clock_timestamp()")
    once(small)
    after = small.value("SELECT clock_timestamp()")
    for table, changed in (("users", 2), ("menu_items", 3), ("orders", 1)):
        assert [key for key, touched in small.sql(f"SELECT id, last_modified_at FROM shop.{table} ORDER BY id")
                if before <= touched <= after] == [changed]


def test_lines_of_the_same_item_and_no_lines(small):
    twice = order(small, user=1, lines=((1, 2), (2, 1), (1, 3)), points=1)
    nothing = order(small, user=2, lines=(), points=7)
    free = order(small, user=3, lines=((3, 1),), points=0)
    expected = small.books().with_canceled(small, [twice, nothing, free])
    once(small)
    agree(small, expected)
    assert small.books().stock[1] == 55


def test_many_orders_of_the_same_instant(small):
    """Pages end, and lanes would, between orders of one age: none is missed, none is done twice."""
    small.sql("INSERT INTO shop.orders (user_id, status, points_spent, last_modified_at) SELECT 1 + n % 5, 'PAYING', 1,"
              " now() - CASE WHEN n <= 700 THEN interval '1 hour' ELSE interval '2 hours' END FROM generate_series(1, 1300) AS n")
    small.sql("INSERT INTO shop.order_items (order_id, item_id, quantity) SELECT id, 1 + id % 6, 1 FROM shop.orders")
    small.configure(jobs=[job(pace="full", lanes=3)])
    expected = small.books().with_canceled(small, small.stale_orders())
    once(small)
    agree(small, expected)
    assert small.runs()[0]["rows_done"] == 1300
    assert len(small.lanes()) > 1


BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


def berlin_autumn():
    """The last change to standard time before today: 03:00 summer time, which is 02:00."""
    now = datetime.datetime.now(datetime.timezone.utc)
    for back in range(1, 400):
        day = (now - datetime.timedelta(days=back)).replace(hour=1, minute=0, second=0, microsecond=0)
        if (day - datetime.timedelta(hours=1)).astimezone(BERLIN).utcoffset() > day.astimezone(BERLIN).utcoffset():
            return day
    raise AssertionError("no autumn")


@pytest.mark.parametrize("cutoff, canceled", [
    (-90, []),                                    # 01:30 summer time
    (-30, ["01:40", "01:59"]),                    # 02:30 summer time: what says 02:10 may be of an hour later
    (-1, ["01:40", "01:59"]),                     # 02:59 summer time, just before the clock goes back
    (1, ["01:40", "01:59"]),                      # 02:01 again
    (30, ["01:40", "01:59", "02:10"]),            # 02:30 in standard time
    (61, ["01:40", "01:59", "02:10", "02:50"]),   # 03:01
    (90, ["01:40", "01:59", "02:10", "02:50", "03:10"]),
])
def test_no_order_looks_older_than_it_is_in_the_hour_that_comes_twice(small, cutoff, canceled):
    """Orders' touched without a zone: Berlin writes 02:30 twice in an autumn's night."""
    transition = berlin_autumn()
    small.sql("DROP INDEX shop.orders_unfinished; ALTER TABLE shop.orders ALTER last_modified_at DROP DEFAULT,"
              " ALTER last_modified_at TYPE timestamp USING last_modified_at AT TIME ZONE 'Europe/Berlin';"
              "CREATE INDEX ON shop.orders (last_modified_at, id) WHERE status = 'PAYING'")
    night = transition.astimezone(BERLIN).date()
    keys = {}
    for clock in ("01:40", "01:59", "02:10", "02:50", "03:10"):
        keys[clock] = small.value("INSERT INTO shop.orders (user_id, status, last_modified_at)"
                                  " VALUES (1, 'PAYING', %s::timestamp) RETURNING id", f"{night} {clock}")
    moment = transition + datetime.timedelta(minutes=cutoff)
    older_than = small.value("SELECT extract(epoch FROM now() - %s)::bigint", moment)
    small.configure(jobs=[job(older_than=f"{older_than}s")], tables={"orders": {"touched_zone": "Europe/Berlin"}})
    assert f"would change {len(canceled)} rows" in once(small, "--dry-run").out
    once(small)
    assert [clock for clock, key in keys.items() if status_of(small, key) == "CANCELED"] == canceled
    assert small.value("SELECT bool_and(abs(extract(epoch FROM last_modified_at - now() AT TIME ZONE 'Europe/Berlin')) < 60)"
                       " FROM shop.orders WHERE status = 'CANCELED'") in (True, None)


def test_a_fresh_order_written_without_zone_is_left_alone(small):
    """Seoul's clock is nine hours ahead of the database session's, which is pinned to UTC."""
    small.sql("DROP INDEX shop.orders_unfinished; ALTER TABLE shop.orders ALTER last_modified_at DROP DEFAULT,"
              " ALTER last_modified_at TYPE timestamp USING last_modified_at AT TIME ZONE 'Asia/Seoul';"
              "CREATE INDEX ON shop.orders (last_modified_at, id) WHERE status = 'PAYING'")
    made = "INSERT INTO shop.orders (user_id, status, last_modified_at) VALUES (1, 'PAYING', (now() - %s::interval)" \
           " AT TIME ZONE 'Asia/Seoul') RETURNING id"
    fresh, stale = small.value(made, "29 minutes"), small.value(made, "31 minutes")
    small.configure(jobs=[job()], tables={"orders": {"touched_zone": "Asia/Seoul"}})
    once(small)
    assert (status_of(small, fresh), status_of(small, stale)) == ("PAYING", "CANCELED")


# ---- Other people's schemas ----

ODD = ["a,b", 'q"uote', "back\\slash", "it's", "Ünïcode", "UPPER", "upper", " lead", "{brace}", "NULL", "%s $1", "=", "", "new\nline"]
KEYS = {
    "integer": ("integer", ["-2147483648", "0", "7", "2147483647"]),
    "uuid": ("uuid", [f"{n:08x}-0000-4000-8000-000000000000" for n in (15, 1, 8)]),
    "text in a language's order": ('text COLLATE "en-x-icu"', ODD),
    "char": ("char(8)", ["a", "b b", "C"]),
    "timestamptz": ("timestamptz", ["2024-02-29 12:00:00.000001+00", "2024-02-29 12:00:00+00", "infinity"]),
}


def quoted(name):
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))


def own_tables(shop, kind, keys, tables):
    """Tables with these names, a key of this kind, one user and one item for each order, of which all but the last are stale."""
    users, items, orders, lines = (tables[group] for group in ("users", "items", "orders", "order_items"))
    names = {f"{group}_{name}": quoted(value) for group, columns in tables.items() for name, value in columns.items()}
    schemas = {quoted(group["table"].split(".")[0]) for group in tables.values() if "." in group["table"]}
    shop.sql("".join(f"CREATE SCHEMA IF NOT EXISTS {schema}; GRANT USAGE ON SCHEMA {schema} TO roundsman;" for schema in schemas) + """
        CREATE TABLE {users_table} ({users_key} {kind} PRIMARY KEY, {users_points} bigint NOT NULL DEFAULT 0,
                                    {users_touched} timestamptz NOT NULL DEFAULT now());
        CREATE TABLE {items_table} ({items_key} {kind} PRIMARY KEY, {items_stock} integer NOT NULL DEFAULT 0,
                                    {items_touched} timestamptz NOT NULL DEFAULT now());
        CREATE TABLE {orders_table} ({orders_key} {kind} PRIMARY KEY, {orders_user} {kind} NOT NULL REFERENCES {users_table},
                                     {orders_status} varchar(10) NOT NULL DEFAULT 'PAYING',
                                     {orders_points_spent} integer NOT NULL DEFAULT 3, {orders_touched} timestamptz NOT NULL);
        CREATE INDEX ON {orders_table} ({orders_touched}, {orders_key}) WHERE {orders_status} = 'PAYING';
        CREATE TABLE {order_items_table} ({order_items_order} {kind} NOT NULL REFERENCES {orders_table},
                                          {order_items_item} {kind} NOT NULL REFERENCES {items_table},
                                          {order_items_quantity} smallint NOT NULL);
        CREATE INDEX ON {order_items_table} ({order_items_order});
        GRANT SELECT, UPDATE ON {users_table}, {items_table}, {orders_table} TO roundsman;
        GRANT SELECT ON {order_items_table} TO roundsman""".replace("{kind}", kind).format_map(names))
    plain = kind.split(" COLLATE")[0]
    for number, key in enumerate(keys):
        for table, columns, values in (
                (users, ["key"], []), (items, ["key"], []),
                (orders, ["key", "user", "touched"], [key, f"{60 + number} minutes" if number + 1 < len(keys) else "1 minute"])):
            marks = [f"%s::{plain}"] * (2 if table is orders else 1) + ["now() - %s::interval"] * (table is orders)
            shop.sql(f"INSERT INTO {quoted(table['table'])} ({', '.join(quoted(table[c]) for c in columns)})"
                     f" VALUES ({', '.join(marks)})", key, *values)
        for quantity in (1, 2):
            shop.sql(f"INSERT INTO {quoted(lines['table'])} ({quoted(lines['order'])}, {quoted(lines['item'])},"
                     f" {quoted(lines['quantity'])}) VALUES (%s::{plain}, %s::{plain}, %s)", key, key, quantity)


def own_state(shop, tables):
    """(status, stock, points) of each order, by its key's text."""
    users, items, orders = (tables[group] for group in ("users", "items", "orders"))
    return {key: state for key, *state in shop.sql(
        f"SELECT o.{quoted(orders['key'])}::text, o.{quoted(orders['status'])}, i.{quoted(items['stock'])},"
        f" u.{quoted(users['points'])} FROM {quoted(orders['table'])} AS o"
        f" JOIN {quoted(items['table'])} AS i ON i.{quoted(items['key'])} = o.{quoted(orders['key'])}"
        f" JOIN {quoted(users['table'])} AS u ON u.{quoted(users['key'])} = o.{quoted(orders['key'])}")}


PLAIN = {
    "users": {"table": "app.people", "key": "id", "points": "credit", "touched": "seen"},
    "items": {"table": "app.things", "key": "id", "stock": "left", "touched": "seen"},
    "orders": {"table": "app.orders", "key": "id", "status": "state", "user": "buyer", "points_spent": "spent", "touched": "seen"},
    "order_items": {"table": "app.lines", "order": "of", "item": "what", "quantity": "number"},
}
AWKWARD = {
    "users": {"table": 'Shop "A".User', "key": "Id", "points": "select", "touched": "it's touched"},
    "items": {"table": "public.Menu, items", "key": "id\\", "stock": "stock", "touched": "when"},
    "orders": {"table": 'Shop "A".order', "key": 'the "key"', "status": "Status", "user": "user", "points_spent": "%s",
               "touched": "$1"},
    "order_items": {"table": 'Shop "A".t', "order": "order", "item": "i", "quantity": "u"},
}
PUBLIC = {group: {**columns, "table": columns["table"].replace("app.", "")} for group, columns in PLAIN.items()}


@pytest.mark.parametrize("kind, keys, tables", [
    *((kind, keys, PLAIN) for kind, keys in KEYS.values()), ("text", ODD, AWKWARD), ("bigint", ["1", "2", "3", "4"], PUBLIC)],
    ids=[*KEYS, "awkward names", "in public"])
def test_own_tables_and_keys(shop, kind, keys, tables):
    """All that is done with an order's key: scan, lock, lines, a leftover and its retry, --only, --dry-run."""
    own_tables(shop, kind, keys, tables)
    shop.configure(jobs=[job()], tables=tables)
    texts = [text for (text,) in shop.sql(f"SELECT {quoted(tables['orders']['key'])}::text FROM"
                                          f" {quoted(tables['orders']['table'])} ORDER BY {quoted(tables['orders']['touched'])}")]
    stale, fresh = texts[:-1], texts[-1]
    new = {key: ["PAYING", 0, 0] for key in texts}
    assert own_state(shop, tables) == new
    result = once(shop, "--dry-run")
    assert f"would change {len(stale)} rows" in result.out
    assert f"{3 * len(stale)} pieces and {3 * len(stale)} points" in result.out
    with shop.hold(f"SELECT FROM {quoted(tables['orders']['table'])} WHERE {quoted(tables['orders']['key'])}::text = %s"
                   " FOR UPDATE", stale[0]):
        once(shop, *(argument for key in (stale[0], fresh) for argument in ("--only", key)), status=10)
    assert own_state(shop, tables) == new
    assert [row["key"] for row in shop.leftovers()] == [stale[0]]
    once(shop, *(argument for key in (stale[0], fresh) for argument in ("--only", key)))
    assert own_state(shop, tables) == {**new, stale[0]: ["CANCELED", 3, 3]}
    with shop.hold(f"SELECT FROM {quoted(tables['orders']['table'])} WHERE {quoted(tables['orders']['key'])}::text = %s"
                   " FOR UPDATE", stale[1]):
        once(shop, status=10)
    assert [row["key"] for row in shop.leftovers()] == [stale[1]]
    once(shop)
    assert own_state(shop, tables) == {**{key: ["CANCELED", 3, 3] for key in stale}, fresh: new[fresh]}
    assert shop.leftovers() == []
    assert [row["state"] for row in shop.runs()] == ["done", "done"]


# ---- The application's own function ----

@pytest.fixture
def with_call(small):
    """A function that does with an order what its user's number says, and notes that it was called."""
    small.sql("""
        CREATE TABLE public.called (n bigint GENERATED ALWAYS AS IDENTITY, id bigint, xid xid8, synchronous text);
        CREATE FUNCTION shop."Expire order"(key bigint) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$
        DECLARE who bigint := (SELECT user_id FROM shop.orders WHERE id = key);
        BEGIN
            INSERT INTO public.called (id, xid, synchronous)
                VALUES (key, pg_current_xact_id(), current_setting('synchronous_commit'));
            CASE who
                WHEN 1 THEN UPDATE shop.orders SET status = 'CANCELED', last_modified_at = now() WHERE id = key; RETURN true;
                WHEN 2 THEN RETURN false;
                WHEN 3 THEN RETURN NULL;
                WHEN 4 THEN UPDATE shop.orders SET status = 'CANCELED' WHERE id = key; RAISE 'the till is closed';
                WHEN 5 THEN RETURN true;
                WHEN 6 THEN PERFORM FROM no_such_table;
                ELSE DELETE FROM shop.order_items WHERE order_id = key; DELETE FROM shop.orders WHERE id = key; RETURN true;
            END CASE;
        END $$;
        REVOKE ALL ON FUNCTION shop."Expire order" FROM PUBLIC;
        GRANT EXECUTE ON FUNCTION shop."Expire order" TO roundsman;
        REVOKE ALL ON shop.users, shop.menu_items, shop.order_items FROM roundsman;
        REVOKE UPDATE (status) ON shop.orders FROM roundsman;
        INSERT INTO shop.users (name, points) VALUES ('user 6', 0), ('user 7', 0)""")
    small.configure(jobs=[job(call="shop.Expire order")])
    return small


def test_call(with_call):
    small = with_call
    small.sql(f'ALTER DATABASE "{small.name}" SET synchronous_commit = off')
    keys = {user: order(small, user=user, lines=((1, 1),), points=5) for user in range(1, 8)}
    fresh = order(small, user=1, age="1 minute")
    expected = small.books()
    result = once(small, status=10)
    expected.status[keys[1]] = "CANCELED"
    del expected.status[keys[7]]
    agree(small, expected)
    (row,) = small.runs()
    assert (row["state"], row["rows_done"], row["rows_skipped"]) == ("partial", 2, 1)
    left = {row["key"]: row["error"] for row in small.leftovers()}
    assert left.keys() == {str(keys[user]) for user in (3, 4, 5, 6)}
    assert "NULL" in left[str(keys[3])]
    assert left[str(keys[4])] == "the till is closed"
    assert "returned true" in left[str(keys[5])]
    assert "no_such_table" in left[str(keys[6])]
    assert all(row["reason"] == "failed" for row in small.leftovers())
    assert result.out.count("left over: key") == 4
    # A call that failed is rolled back with what it noted; the others were a transaction each, none asynchronous.
    calls = small.sql("SELECT id, xid::text, synchronous FROM public.called ORDER BY n")
    assert [call[0] for call in calls] == [keys[1], keys[2], keys[7]]
    assert len({call[1] for call in calls}) == 3
    assert {call[2] for call in calls} == {"on"}
    assert fresh not in [call[0] for call in calls]
    # The application is mended.
    small.sql("UPDATE shop.orders SET user_id = 1 WHERE id = ANY(%s)", [keys[3], keys[4], keys[6]])
    small.sql("UPDATE shop.orders SET user_id = 2 WHERE id = %s", keys[5])
    once(small)
    assert [status_of(small, keys[user]) for user in (3, 4, 5, 6)] == ["CANCELED", "CANCELED", "PAYING", "CANCELED"]
    (row,) = small.runs()
    assert (row["state"], row["rows_done"], row["rows_skipped"]) == ("done", 5, 2)
    assert {call[0] for call in small.sql("SELECT synchronous FROM public.called")} == {"on"}


@pytest.mark.parametrize("change, status", CHANGES.values(), ids=CHANGES.keys())
def test_call_is_not_made_for_an_order_that_changed_meanwhile(with_call, change, status):
    small = with_call
    first, second, third = (order(small, lines=()) for _ in range(3))
    with at_gate(small, "shop.orders", f"OLD.id = {first} AND NEW.status = 'CANCELED'") as (run, held):
        # Nothing but the order's own lock is ours while its function runs.
        assert locked(small, "shop.orders") == {first}
        small.sql(change, second)
        held.open()
        assert run.wait() == 0
    assert [row[0] for row in small.sql("SELECT id FROM public.called ORDER BY n")] == [first, third]
    assert dict(small.sql("SELECT id, status FROM shop.orders")).get(second) == status


def test_call_is_not_made_for_a_locked_order(with_call):
    small = with_call
    first, second = order(small), order(small)
    with small.hold("SELECT FROM shop.orders WHERE id = %s FOR UPDATE", first):
        once(small, status=10)
        assert [row[0] for row in small.sql("SELECT id FROM public.called")] == [second]
    once(small)
    assert [row[0] for row in small.sql("SELECT id FROM public.called ORDER BY n")] == [second, first]
    assert status_of(small, first) == "CANCELED"


# ---- --only, --dry-run, the scan ----

def test_only(small):
    stale, other, fresh = order(small, points=1), order(small, user=2, points=1), order(small, user=3, age="1 minute")
    expected = small.books().with_canceled(small, [stale])
    dry = once(small, "--only", str(stale), "--only", str(fresh), "--dry-run")
    assert "would change 1 row, " in dry.out and dry.out.rstrip().endswith(f"the first keys: {stale}"), dry.out
    result = once(small, "--only", str(stale), "--only", str(fresh))
    assert "1 row changed" in result.out and "for 1 of 2 keys there is no row" in result.err
    agree(small, expected)
    result = once(small, "--only", "4711")
    assert "0 rows changed" in result.out and "for 1 of 1 keys there is no row" in result.err
    result = small.roundsman("--run-once", NAME, "--only", "no number")
    assert result.status == 2 and "no number" in result.err
    agree(small, expected)
    assert status_of(small, other) == "PAYING"


def test_dry_run_counts_and_changes_nothing(small):
    small.configure(jobs=[job(unpaid_statuses=["CREATED"])])
    stale = [order(small, user=user, lines=((1, 2), (2, 1)), points=10) for user in (1, 2)]
    cart = order(small, status="CREATED", lines=((1, 9),), points=9, age="2 hours")
    order(small, age="1 minute")
    before = small.books()
    result = once(small, "--dry-run")
    assert "would change 3 rows" in result.out and "6 pieces and 20 points" in result.out
    assert f"{cart}, {stale[0]}, {stale[1]}" in result.out
    agree(small, before)
    assert small.runs() == []
    assert "would change 2 rows" in once(small, "--dry-run", "--set", "unpaid_statuses=").out


def test_an_older_age_for_once(small):
    old, older = order(small, age="1 hour"), order(small, age="3 hours")
    once(small, "--set", "older_than=2h")
    assert (status_of(small, old), status_of(small, older)) == ("PAYING", "CANCELED")


def test_the_scan_reads_the_index_and_nothing_else(small):
    small.sql("INSERT INTO shop.orders (user_id, status, last_modified_at) SELECT 1 + n % 5, 'PAID', now() - interval '2 hours'"
              " FROM generate_series(1, 20000) AS n")
    small.sql("INSERT INTO shop.order_items (order_id, item_id, quantity) SELECT id, 1, 1 FROM shop.orders")
    stale = [order(small) for _ in range(3)]
    small.sql("ANALYZE shop.orders, shop.order_items")

    def scans():
        return (small.sql("SELECT relname, seq_scan FROM pg_stat_user_tables WHERE relname IN ('orders', 'order_items')"
                          " ORDER BY 1"),
                small.value("SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'orders_unfinished'"))
    expected = small.books().with_canceled(small, stale)
    small.sql("SELECT pg_stat_force_next_flush()")
    before = scans()
    once(small)
    wait_until(lambda: scans()[1] > before[1], what="the run's statistics")
    wait_until(lambda: small.value("SELECT count(*) FROM pg_stat_activity WHERE usename = 'roundsman'"
                                   " AND datname = current_database()") == 0, what="the run's sessions to end")
    assert scans()[0] == before[0]
    agree(small, expected)
