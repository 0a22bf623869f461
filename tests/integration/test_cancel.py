# SPDX-License-Identifier: PostgreSQL
"""Canceling orders: what is locked and for how long, what comes back, what is left over, and whose orders are left alone.

The order of events is forced: a gate is a trigger (or an operator) at which a session of the program waits, in the middle
of a statement, until the test opens it.
"""

import contextlib
import datetime
import signal
import zoneinfo

import psycopg
import pytest

from harness import JOBS, YEARLY, wait_until

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


def test_every_order_in_its_own_transaction_in_the_order_of_the_shops_locks(small):
    """Changes are logged by triggers: by whom, when, in which transaction, with which kind of commit."""
    small.sql("""
        CREATE TABLE public.change (n bigint GENERATED ALWAYS AS IDENTITY, xid xid8, place text, key bigint, synchronous text);
        CREATE FUNCTION public.log_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
        BEGIN
            INSERT INTO public.change (xid, place, key, synchronous)
                VALUES (pg_current_xact_id(), TG_TABLE_NAME, NEW.id, current_setting('synchronous_commit'));
            RETURN NEW;
        END $$;
        CREATE TRIGGER log BEFORE UPDATE ON shop.users FOR EACH ROW EXECUTE FUNCTION public.log_change();
        CREATE TRIGGER log BEFORE UPDATE ON shop.menu_items FOR EACH ROW EXECUTE FUNCTION public.log_change();
        CREATE TRIGGER log BEFORE UPDATE ON shop.orders FOR EACH ROW EXECUTE FUNCTION public.log_change()""")
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
        # The order's own row and all that it gave back say the same transaction.
    assert sorted(seen) == stale
    assert small.value("SELECT count(DISTINCT xmin::text) FROM shop.orders WHERE status = 'CANCELED'") == 4


def test_items_are_locked_in_the_order_of_their_keys(small):
    """The first item is held by live traffic: none of the others may be locked while we wait for it."""
    small.configure(jobs=[job(lock_timeout="900ms")])
    # Physically the items lie from 6 down to 1, and the lines, too, name them so.
    for item in (5, 4, 3, 2, 1):
        small.sql("UPDATE shop.menu_items SET id = id + 100 WHERE id = %s", item)
    key = order(small, lines=((105, 1), (6, 1), (103, 1), (101, 1)))
    expected = small.books().with_canceled(small, [key])
    with small.hold("SELECT FROM shop.menu_items WHERE id = 6 FOR UPDATE") as live, small.start("--run-once", NAME) as run:
        wait_until(lambda: small.value("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                                       " AND usename = 'roundsman' AND wait_event_type = 'Lock'"), what="the wait for item 6")
        assert locked(small, "shop.menu_items") == {6}
        live.rollback()
        assert run.wait() == 0
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
    assert (row["state"], row["rows_done"]) == ("done", 2)
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
