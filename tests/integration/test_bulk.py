# SPDX-License-Identifier: PostgreSQL
"""The range updates (points, restock): exactly once, live traffic first, one stuck or failing row stalls nothing."""

import json
import re
import threading

import psycopg
import pytest

from harness import YEARLY, wait_until

POINTS = {"name": "points", "kind": "points", "schedule": YEARLY, "amount": 10, "lanes": 1}
RESTOCK = {"name": "restock", "kind": "restock", "schedule": YEARLY}


def configure(shop, job=POINTS, tables=None, defaults=None, **settings):
    return shop.configure(jobs=[{**job, **settings}], tables=tables or {}, defaults={"timezone": "UTC", **(defaults or {})})


def run(shop, status=0, *more, job="points"):
    result = shop.roundsman("--run-once", job, *more)
    assert result.status == status, result
    return result


def expect(shop, expected):
    books = shop.books()
    assert books == expected, books.explain(expected)


def waiting(shop, event="Lock"):
    """A session of the program waits: for somebody's lock, or (Timeout) in pg_sleep()."""
    return wait_until(lambda: shop.sql("SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                                       " AND application_name LIKE 'roundsman%%' AND wait_event_type = %s", event),
                      what="the program to wait")


def triggered(shop, body, when="true", table="shop.users"):
    """Before each update of a row: PL/pgSQL, as the superuser."""
    shop.sql(f"CREATE FUNCTION shop.before() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
             f" $$ BEGIN {body} RETURN NEW; END $$")
    shop.sql(f"CREATE TRIGGER before BEFORE UPDATE ON {table} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION shop.before()")


def recorded(shop, more=""):
    """Which transaction changed which key, in which order."""
    shop.sql("CREATE TABLE shop.record (place bigint GENERATED ALWAYS AS IDENTITY, txid bigint, id bigint)")
    triggered(shop, f"INSERT INTO shop.record (txid, id) VALUES (txid_current(), NEW.id); {more}")


def batches(shop):
    return [ids for ids, in shop.sql("SELECT array_agg(id ORDER BY place) FROM shop.record GROUP BY txid ORDER BY min(place)")]


def tiled(shop, last):
    """The lanes of the only run part its keys without gap or overlap, and each is at its end."""
    lanes = shop.lanes()
    assert lanes[0]["range_from"] is None
    assert [lane["range_to"] for lane in lanes[:-1]] == [lane["range_from"] for lane in lanes[1:]]
    assert lanes[-1]["range_to"] == last
    assert all(lane["cursor"] == lane["range_to"] for lane in lanes)
    return lanes


# ---- Locked rows ----

def test_a_locked_row_is_left_over_and_done_once(shop):
    configure(shop, pace="full", lanes=2)
    before, expected = shop.books(), shop.books().with_points(10)
    with shop.hold("SELECT FROM shop.users WHERE id = 500 FOR UPDATE"):
        result = run(shop, 10)
        assert "left over: key 500, locked: another session holds a lock on the row (SQLSTATE 55P03)" in result.out
        assert "partial: 999 rows changed, 1 left over" in result.out
        (left,) = shop.leftovers()
        assert (left["key"], left["reason"], left["sqlstate"]) == ("500", "locked", "55P03")
        expected.points[500] = before.points[500]
        expect(shop, expected)
        assert [made["state"] for made in shop.runs()] == ["partial"]
        # The same command again: that row alone is tried, and it is still locked.
        attempts = left["attempts"]
        result = run(shop, 10)
        assert "retrying" in result.err and "still partial" in result.out
        assert shop.leftovers()[0]["attempts"] == attempts + 1
        expect(shop, expected)
    result = run(shop)
    assert "done: 1000 rows changed" in result.out
    expect(shop, before.with_points(10))
    (made,) = shop.runs()
    assert (made["state"], made["rows_done"]) == ("done", 1000)
    assert shop.leftovers() == []
    # All is settled: now the same command is a new round.
    run(shop)
    expect(shop, before.with_points(20))


def test_a_scheduled_run_with_leftovers_is_not_followed_by_an_extra_one(shop):
    """--run-once settles what is owed and leaves a row over; typed again it does that row, and credits nobody twice."""
    configure(shop)
    run(shop, 0, "--dry-run")
    shop.roundsman("--run-once", "points", "--only", "1")
    books = shop.books()
    shop.sql("UPDATE roundsman.job SET settled_through = date_trunc('year', now()) - interval '1 day'")
    with shop.hold("SELECT FROM shop.users WHERE id = 3 FOR UPDATE"):
        configure(shop, catch_up="all", catch_up_max_age="400d")
        run(shop, 10)
        run(shop, 10)
    result = run(shop)
    assert "done: 1000 rows changed" in result.out
    expect(shop, books.with_points(10))
    assert [made["state"] for made in shop.runs()] == ["done", "done"]


# The program's role may read which rows have an xmax, or not.
MARKS = pytest.mark.parametrize("marks", ["with marks", "without marks"])


def unmarked(shop, marks):
    if marks == "without marks":
        shop.sql("REVOKE SELECT (xmax) ON shop.users FROM roundsman")


@MARKS
def test_a_batch_waits_once_at_most(shop, marks):
    """A hundred rows are locked, ten in each of ten batches: there are ten waits."""
    configure(shop, lock_timeout="60ms", batch_max=100)
    unmarked(shop, marks)
    shop.sql(f'ALTER DATABASE "{shop.name}" SET deadlock_timeout = 20')  # how long a wait must last to be logged
    expected = shop.books().with_points(10)
    with shop.hold("SELECT FROM shop.users WHERE id % 10 = 5 FOR NO KEY UPDATE"):
        run(shop, 10)
        waits = len(re.findall(rf"@{shop.name} .*still waiting for", shop.server.log()))
        assert 1 <= waits <= 10
        assert [left["key"] for left in shop.leftovers()] == sorted(str(key) for key in range(5, 1001, 10))
    run(shop)
    expect(shop, expected)


def test_many_leftovers_are_all_retried(shop):
    """More than one page of them."""
    configure(shop)
    expected = shop.books().with_points(10)
    with shop.hold("SELECT FROM shop.users WHERE id > 100 FOR NO KEY UPDATE"):
        run(shop, 10)
    run(shop)
    expect(shop, expected)
    assert [made["state"] for made in shop.runs()] == ["done"]


def test_in_a_deadlock_we_give_way(shop):
    configure(shop, lock_timeout="500ms")
    expected = shop.books().with_points(10)
    live = []
    with shop.hold("SELECT FROM shop.users WHERE id = 50 FOR UPDATE") as session:
        with shop.start("--run-once", "points") as process:
            waiting(shop)  # it has rows 1 to 49, and wants row 50
            thread = threading.Thread(target=lambda: live.append(
                session.execute("UPDATE shop.users SET name = 'live' WHERE id = 10").rowcount))
            thread.start()
            thread.join(20)
            assert live == [1], "the live session was the victim"
            session.commit()
            assert process.wait() in (0, 10)
    assert not re.search(rf"@{shop.name} .*deadlock detected", shop.server.log())
    if shop.runs()[0]["state"] == "partial":
        run(shop)
    expect(shop, expected)
    assert shop.value("SELECT name FROM shop.users WHERE id = 10") == "live"


def test_the_leftovers_that_are_due_longest_come_first(shop):
    """However many an older run has."""
    configure(shop)
    run(shop)
    run(shop)
    (first, second) = (made["id"] for made in shop.runs())
    shop.sql("UPDATE roundsman.run SET state = 'partial'")
    shop.sql("INSERT INTO roundsman.leftover (run_id, key, lane, reason)"
             " SELECT %s, n::text, 0, 'failed' FROM generate_series(1, 600) n", first)
    shop.sql("INSERT INTO roundsman.leftover (run_id, key, lane, reason, next_attempt)"
             " VALUES (%s, '7', 0, 'failed', now() - interval '1 hour')", second)
    expected = shop.books()
    run(shop, 0, "--set", "amount=1")
    assert [made["state"] for made in shop.runs()] == ["partial", "done", "done"]
    assert len(shop.leftovers()) == 600 - 499
    expected = expected.with_points(1)
    for key in set(range(1, 601)) - {int(left["key"]) for left in shop.leftovers()}:
        expected.points[key] += 10
    expected.points[7] += 10  # the other run's
    expect(shop, expected)


def test_a_row_that_is_gone_is_no_leftover_any_more(shop):
    configure(shop)
    shop.sql("DELETE FROM shop.order_items; DELETE FROM shop.orders")
    expected = shop.books().with_points(10)
    with shop.hold("SELECT FROM shop.users WHERE id = 500 FOR UPDATE"):
        run(shop, 10)
    shop.sql("DELETE FROM shop.users WHERE id = 500")
    run(shop)
    del expected.points[500]
    expect(shop, expected)
    assert [(made["state"], made["rows_done"]) for made in shop.runs()] == [("done", 999)]


# ---- Failing rows ----

FAILING = {
    "constraint": ("23514", [700], "ALTER TABLE shop.users ADD CONSTRAINT tight CHECK (id <> 700 OR points <= 1000) NOT VALID",
                   "ALTER TABLE shop.users DROP CONSTRAINT tight"),
    "condition": ("22012", [500], "UPDATE shop.users SET name = '0' WHERE id = 500; GRANT SELECT ON shop.users TO roundsman",
                  "UPDATE shop.users SET name = '1' WHERE id = 500"),
    "overflow": ("22003", [1, 1000], "UPDATE shop.users SET points = 9223372036854775807 WHERE id IN (1, 1000)",
                 "UPDATE shop.users SET points = 1000 WHERE id IN (1, 1000)"),
    "trigger": ("P0001", list(range(7, 1001, 20)), None, "DROP TRIGGER before ON shop.users"),
    "neighbors": ("P0001", [498, 499, 500, 501, 502, 1000], None, "DROP TRIGGER before ON shop.users"),
}


@MARKS
@pytest.mark.parametrize("case", FAILING)
def test_failing_rows_are_found_and_left_over(shop, case, marks):
    sqlstate, keys, spoil, mend = FAILING[case]
    configure(shop, **({"where": "CASE WHEN name = '0' THEN 1 / (points - points) ELSE 1 END = 1"} if case == "condition" else {}))
    unmarked(shop, marks)
    if spoil is None:
        triggered(shop, "RAISE EXCEPTION 'not user %', NEW.id;", f"NEW.id IN ({', '.join(map(str, keys))})")
    else:
        shop.sql(spoil)
    before = shop.books()
    expected = before.with_points(10)
    expected.points.update((key, before.points[key]) for key in keys)
    result = run(shop, 10)
    expect(shop, expected)
    leftovers = {int(left["key"]): left for left in shop.leftovers()}
    assert sorted(leftovers) == keys
    assert {(left["reason"], left["sqlstate"]) for left in leftovers.values()} == {("failed", sqlstate)}
    assert all(left["error"] for left in leftovers.values())
    shown = int(min(map(str, keys)))
    assert f"left over: key {shown}, failed: {leftovers[shown]['error']} (SQLSTATE {sqlstate})" in result.out
    assert ("and 40 more" in result.out) == (len(keys) == 50)
    if case in ("trigger", "neighbors"):
        assert all(left["error"].startswith(f"not user {key}") for key, left in leftovers.items())
    assert [made["rows_done"] for made in shop.runs()] == [1000 - len(keys)]
    run(shop, 10)
    expect(shop, expected)
    shop.sql(mend)
    expected = before.with_points(10)
    if case == "overflow":
        expected.points.update({1: 1010, 1000: 1010})
    run(shop)
    expect(shop, expected)
    assert [(made["state"], made["rows_done"]) for made in shop.runs()] == [("done", 1000)]


def test_a_failing_row_is_found_at_once(shop):
    """By how far its batch had come: it fails in that, and alone. Halving takes some ten attempts."""
    configure(shop, batch_max=2000)
    shop.sql(FAILING["constraint"][2])
    run(shop, 10)
    errors = re.findall(rf"@{shop.name} ERROR: .*violates check constraint", shop.server.log())
    assert len(errors) == 3, errors  # and once more at the end of the run
    assert [left["key"] for left in shop.leftovers()] == ["700"]


def test_an_open_transaction_beside_a_failing_row(shop):
    """The rows that it has referenced have an xmax of two: they do not mislead."""
    configure(shop, batch_max=2000)
    shop.sql(FAILING["constraint"][2])
    with shop.hold("INSERT INTO shop.orders (user_id) SELECT n FROM generate_series(2, 1000, 2) AS n"):
        run(shop, 10)
        errors = re.findall(rf"@{shop.name} ERROR: .*violates check constraint", shop.server.log())
        assert len(errors) == 3, errors
        assert [left["key"] for left in shop.leftovers()] == ["700"]


def test_a_batch_that_steps_over_locks_and_loses_a_wait(shop):
    """A row is locked after its snapshot: it is done again in the way that waits for none."""
    shop.sql("UPDATE shop.users SET name = name")  # orders have locked some of them: that was the version before
    configure(shop, where="CASE WHEN id = 60 THEN pg_sleep(0.5) IS NOT NULL ELSE true END")
    expected = shop.books().with_points(10)
    with shop.hold("SELECT FROM shop.users WHERE id = 50 FOR UPDATE"), shop.start("--run-once", "points") as process:
        wait_until(lambda: shop.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%rm_marked%'"),
                   what="the careful batch")
        with shop.hold("SELECT FROM shop.users WHERE id = 90 FOR UPDATE"):
            assert process.wait() == 10
    assert len(re.findall(rf"@{shop.name} ERROR: .*lock timeout", shop.server.log())) == 2
    assert sorted(left["key"] for left in shop.leftovers()) == ["50", "90"]
    configure(shop)
    run(shop)
    expect(shop, expected)


def test_marks_that_mislead(shop):
    """The batch that steps over locked rows fails, at a row that it had tried to lock before it changed any."""
    configure(shop, lanes=1)
    shop.sql(FAILING["constraint"][2])
    shop.sql("SELECT FROM shop.users WHERE id IN (300, 700, 701) FOR UPDATE")  # they have an xmax from now on
    before = shop.books()
    expected = before.with_points(10)
    expected.points.update((key, before.points[key]) for key in (5, 700))
    with shop.hold("SELECT FROM shop.users WHERE id = 5 FOR UPDATE"):
        run(shop, 10)
        assert {(left["key"], left["reason"]) for left in shop.leftovers()} == {("5", "locked"), ("700", "failed")}
        expect(shop, expected)
    shop.sql(FAILING["constraint"][3])
    run(shop)
    expect(shop, before.with_points(10))


def test_failing_and_locked_rows_beside_each_other(shop):
    configure(shop, pace="full", lanes=2)
    triggered(shop, "RAISE EXCEPTION 'no';", "NEW.id IN (40, 42, 600)")
    before = shop.books()
    expected = before.with_points(10)
    with shop.hold("SELECT FROM shop.users WHERE id IN (41, 43, 601) FOR NO KEY UPDATE"):
        run(shop, 10)
        assert {(left["key"], left["reason"]) for left in shop.leftovers()} == {
            ("40", "failed"), ("41", "locked"), ("42", "failed"), ("43", "locked"), ("600", "failed"), ("601", "locked")}
        books = shop.books()
        expected.points.update((key, before.points[key]) for key in (40, 41, 42, 43, 600, 601))
        assert books == expected, books.explain(expected)
    run(shop, 10)
    assert [left["key"] for left in shop.leftovers()] == ["40", "42", "600"]
    shop.sql("DROP TRIGGER before ON shop.users")
    run(shop)
    expect(shop, before.with_points(10))


@pytest.mark.parametrize("careful", [False, True])
@pytest.mark.parametrize("body", ["IF OLD.id IN (3, 700) THEN RETURN NULL; END IF;",
                                  "IF OLD.id IN (3, 700) THEN NEW.points := OLD.points; END IF;",
                                  "IF OLD.id IN (3, 700) THEN NEW.points := NEW.points + 1; END IF;"])
def test_a_change_that_a_trigger_swallows_is_an_error_of_its_row(shop, body, careful):
    configure(shop)
    triggered(shop, body)
    before, expected = shop.books(), shop.books().with_points(10)
    with shop.hold("SELECT FROM shop.users WHERE id = 10 AND %s FOR UPDATE", careful):
        run(shop, 10)
    left = {row["key"]: row["error"] for row in shop.leftovers()}
    swallowed = "a trigger or a rule swallowed the change, or made another of it"
    assert left.pop("10", None) == ("another session holds a lock on the row" if careful else None)
    assert left == {"3": swallowed, "700": swallowed}
    expected.points.update((user, before.points[user]) for user in ((3, 700, 10) if careful else (3, 700)))
    expect(shop, expected)
    run(shop, 10)  # and so it is when they are tried again
    expected.points[10] = before.points[10] + 10
    expect(shop, expected)
    shop.sql("DROP TRIGGER before ON shop.users")
    run(shop)
    expect(shop, before.with_points(10))


def test_restocked_items_of_a_trigger_are_no_items_at_the_mark(shop):
    configure(shop, RESTOCK, add=1, up_to=60)
    triggered(shop, "IF OLD.id % 10 = 0 THEN RETURN NULL; END IF;", table="shop.menu_items")
    below = shop.value("SELECT count(*) FROM shop.menu_items WHERE stock < 60")
    swallowed = shop.value("SELECT count(*) FROM shop.menu_items WHERE stock < 60 AND id % 10 = 0")
    run(shop, 10, job="restock")
    (made,) = shop.runs()
    assert (made["rows_done"], made["rows_skipped"]) == (below - swallowed, 100 - below)
    assert len(shop.leftovers()) == swallowed > 0


def test_an_error_of_no_single_row_ends_the_run_and_loses_nothing(shop):
    """Privileges are gone in the middle: it is no row's fault, so no row is left over, and the same run goes on after."""
    configure(shop, batch_max=100)
    triggered(shop, "PERFORM pg_sleep(0.01) FROM shop.closed;", "NEW.id = 150")
    shop.sql("CREATE TABLE shop.closed AS SELECT 1")
    shop.sql("CREATE OR REPLACE FUNCTION shop.before() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN"
             " WHILE EXISTS (SELECT FROM shop.closed) LOOP PERFORM pg_sleep(0.01); END LOOP; RETURN NEW; END $$")
    expected = shop.books().with_points(10)
    with shop.start("--run-once", "points") as process:
        waiting(shop, "Timeout")
        shop.sql("REVOKE UPDATE (points) ON shop.users FROM roundsman")
        shop.sql("DELETE FROM shop.closed")
        assert process.wait() == 1
        assert "permission denied for table users" in process.log()
    assert shop.leftovers() == []
    (made,) = shop.runs()
    assert made["state"] == "failed" and made["rows_done"] == 200 and "permission denied" in made["error"]
    result = run(shop, 1)
    assert "GRANT UPDATE" in result.err, result
    shop.sql("GRANT UPDATE (points) ON shop.users TO roundsman")
    result = run(shop)
    assert "finishing run" in result.err
    expect(shop, expected)
    assert [made["state"] for made in shop.runs()] == ["done"]


def test_a_row_whose_trigger_says_that_nothing_goes_is_a_row(shop):
    """An application's trigger raises what SQLSTATE it likes: of a class that we take for everybody's, too."""
    configure(shop)
    triggered(shop, "RAISE EXCEPTION 'account % is frozen', NEW.id USING ERRCODE = 'object_not_in_prerequisite_state';",
              "NEW.id IN (1, 2, 500)")
    expected = shop.books().with_points(10)
    result = run(shop, 1)
    assert "account 2 is frozen" in result.err
    assert [left["key"] for left in shop.leftovers()] == ["1"]  # two in a row may be all: the run waits for somebody
    run(shop, 10)
    assert [(left["key"], left["sqlstate"]) for left in shop.leftovers()] == [(key, "55000") for key in ("1", "2", "500")]
    shop.sql("DROP TRIGGER before ON shop.users")
    run(shop)
    expect(shop, expected)


def test_a_trigger_that_fails_for_all_ends_the_run(shop):
    configure(shop)
    triggered(shop, "PERFORM shop.there_is_no_such_function();")
    expected = shop.books().with_points(10)
    assert "no_such_function" in run(shop, 1).err
    assert len(shop.leftovers()) == 1
    shop.sql("CREATE FUNCTION shop.there_is_no_such_function() RETURNS integer LANGUAGE sql AS 'SELECT 1'")
    run(shop)
    expect(shop, expected)


@pytest.mark.parametrize("who", ["tool", "daemon"])
def test_leftovers_are_retried_with_their_own_parameters(shop, who):
    """By hand, or by the daemon when it starts: the row gets what its run gave the others, not what the file says now."""
    configure(shop, retry_delay="1s")
    expected = shop.books().with_points(10)
    with shop.hold("SELECT FROM shop.users WHERE id = 500 FOR UPDATE"):
        due = shop.value("SELECT to_char(date_trunc('year', now()), 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')")
        run(shop, 10, *(("--due", due) if who == "daemon" else ()))
        configure(shop, amount=9999, where="id < 3", retry_delay="1s")
    if who == "tool":
        run(shop)
    else:
        with shop.start() as daemon:
            wait_until(lambda: shop.runs()[0]["state"] == "done", what="the daemon to retry")
            assert daemon.stop() == 0
        assert "its last leftover is settled" in daemon.log()
    expect(shop, expected)
    assert [made["state"] for made in shop.runs()] == ["done"]


# ---- What is changed, and what is not ----

def test_a_deduction_skips_whom_it_would_take_below_zero(shop):
    configure(shop, amount=-1200)
    before = shop.books()
    result = run(shop)
    expected = before.with_points(-1200)
    expect(shop, expected)
    poor = sum(points < 1200 for points in before.points.values())
    (made,) = shop.runs()
    assert (made["state"], made["rows_done"], made["rows_skipped"]) == ("done", 1000 - poor, poor)
    assert f"{1000 - poor} rows changed, {poor} skipped" in result.out


def test_a_retried_row_is_judged_as_it_is_by_then(shop):
    """It has too few points now, or is none of those that the condition means: neither is touched, and both are settled."""
    shop.sql("GRANT SELECT ON shop.users TO roundsman")
    configure(shop, amount=-10, where="last_modified_at > '2000-01-01'")
    with shop.hold("SELECT FROM shop.users WHERE id IN (500, 501) FOR UPDATE"):
        run(shop, 10)
    shop.sql("UPDATE shop.users SET points = 5 WHERE id = 500; UPDATE shop.users SET last_modified_at = '1999-01-01' WHERE id = 501")
    books = shop.books()
    run(shop)
    expect(shop, books)
    assert [(made["state"], made["rows_done"], made["rows_skipped"]) for made in shop.runs()] == [("done", 998, 2)]


def test_a_deduction_sees_what_a_live_session_has_just_spent(shop):
    """User 5 can pay when the batch starts, and cannot any more when it gets the row."""
    configure(shop, amount=-1000, lock_timeout="500ms")
    expected = shop.books().with_points(-1000)
    with shop.hold("UPDATE shop.users SET points = 3 WHERE id = 5") as live:
        with shop.start("--run-once", "points") as process:
            waiting(shop)
            live.commit()
            assert process.wait() == 0, process.log()
    expected.points[5] = 3
    expect(shop, expected)
    (made,) = shop.runs()
    assert (made["rows_done"], made["rows_skipped"]) == (999, 1)


def test_a_live_purchase_is_not_overwritten(shop):
    """The same the other way: what is added is added to what the row holds then."""
    configure(shop, lock_timeout="500ms")
    expected = shop.books().with_points(10)
    with shop.hold("UPDATE shop.users SET points = points - 7 WHERE id = 5") as live:
        with shop.start("--run-once", "points") as process:
            waiting(shop)
            live.commit()
            assert process.wait() == 0, process.log()
    expected.points[5] -= 7
    expect(shop, expected)


@pytest.mark.parametrize("settings, rule", [
    ({"add": 10}, lambda stock: stock + 10),
    ({"add": 10, "up_to": 60}, lambda stock: max(stock, min(stock + 10, 60))),
    ({"fill_to": 60}, lambda stock: max(stock, 60)),
], ids=["add", "up_to", "fill_to"])
def test_restock(shop, settings, rule):
    configure(shop, RESTOCK, **settings)
    shop.sql("UPDATE shop.menu_items SET stock = 60 WHERE id = 1; UPDATE shop.menu_items SET stock = 500 WHERE id = 2")
    before = dict(shop.sql("SELECT id, (stock, xmin::text, last_modified_at)::text FROM shop.menu_items"))
    stock = dict(shop.sql("SELECT id, stock FROM shop.menu_items"))
    preview = run(shop, 0, "--dry-run", job="restock")
    run(shop, job="restock")
    assert dict(shop.sql("SELECT id, stock FROM shop.menu_items")) == {item: rule(old) for item, old in stock.items()}
    after = dict(shop.sql("SELECT id, (stock, xmin::text, last_modified_at)::text FROM shop.menu_items"))
    full = {item for item, old in stock.items() if rule(old) == old}
    assert {item for item in after if after[item] == before[item]} == full, "rows at the mark are not written"
    (made,) = shop.runs()
    assert (made["rows_done"], made["rows_skipped"]) == (100 - len(full), len(full))
    pieces = sum(rule(old) - old for old in stock.values())
    assert f"would change {100 - len(full)} rows, by {pieces} pieces" in preview.out


def test_where(shop):
    configure(shop, where="id % 2 = 0 OR id = 1 -- every other one; and the first")
    before, expected = shop.books(), shop.books()
    assert "would change 501 rows" in run(shop, 0, "--dry-run").out
    with shop.hold("SELECT FROM shop.users WHERE id IN (7, 8) FOR NO KEY UPDATE"):
        run(shop, 10)  # row 7 is none of ours, and whoever has locked it is not waited for
        assert [left["key"] for left in shop.leftovers()] == ["8"]
    run(shop)
    expected.points = {key: old + 10 * (key % 2 == 0 or key == 1) for key, old in before.points.items()}
    expect(shop, expected)


@pytest.mark.parametrize("table", ["change", "free", "gate", "gone", "late", "lane", "seen", "target", "todo"])
def test_where_reads_the_shops_own_tables_whatever_their_names(shop, table):
    """None of the parts of our statements hides one."""
    shop.sql(f"CREATE TABLE shop.{table} AS SELECT id FROM shop.users WHERE id % 2 = 0")
    shop.sql(f"GRANT SELECT ON shop.{table} TO roundsman")
    configure(shop, where=f"id IN (SELECT id FROM {table})")
    expected = shop.books()
    expected.points = {key: old + 10 * (key % 2 == 0) for key, old in expected.points.items()}
    with shop.hold("SELECT FROM shop.users WHERE id = 8 FOR NO KEY UPDATE"):
        run(shop, 10)
    run(shop)
    expect(shop, expected)


@pytest.mark.parametrize("where", ["grade = 'VIP'", "id IN (SELECT id FROM shop.special)"])
def test_an_index_of_where_does_not_take_the_place_of_the_key(shop, where):
    """Its order would be that in which rows are locked."""
    shop.sql("CREATE TABLE shop.big (id bigint PRIMARY KEY, points bigint NOT NULL DEFAULT 0, grade text)")
    shop.sql("INSERT INTO shop.big SELECT n, 0, CASE WHEN n BETWEEN 150 AND 170 THEN 'VIP' END"
             " FROM generate_series(20000, 1, -1) n")
    shop.sql("CREATE INDEX ON shop.big (grade); ANALYZE shop.big")
    shop.sql("CREATE TABLE shop.special AS SELECT id FROM shop.big WHERE grade = 'VIP'; ANALYZE shop.special")
    shop.sql("GRANT SELECT, UPDATE ON shop.big TO roundsman; GRANT SELECT ON shop.special TO roundsman")
    recorded(shop)
    shop.sql("CREATE TRIGGER before BEFORE UPDATE ON shop.big FOR EACH ROW EXECUTE FUNCTION shop.before()")
    configure(shop, tables={"users": {"table": "shop.big", "touched": ""}}, where=where)
    run(shop)
    assert sum(batches(shop), []) == list(range(150, 171))


def test_only(shop):
    configure(shop)
    before, expected = shop.books(), shop.books()
    result = run(shop, 0, "--only", "7", "--only", "5", "--only", "7", "--only", "123456")
    assert "2 rows changed" in result.out
    expected.points.update((key, before.points[key] + 10) for key in (5, 7))
    expect(shop, expected)
    result = run(shop, 2, "--only", "seven")
    assert 'invalid input syntax for type bigint: "seven"' in result.err
    assert len(shop.runs()) == 1
    run(shop, 0, "--only", "7", "--set", "amount=-3")
    expected.points[7] -= 3
    expect(shop, expected)
    assert [made["rows_done"] for made in shop.runs()] == [2, 1]


def test_only_finishes_what_only_the_same_command_began(shop):
    configure(shop)
    with shop.hold("SELECT FROM shop.users WHERE id = 7 FOR UPDATE"):
        run(shop, 10, "--only", "7", "--only", "8")
        books = shop.books()
        run(shop, 0, "--only", "9")  # another request: a run of its own
    books.points[9] += 10
    expect(shop, books)
    run(shop, 0, "--only", "7", "--only", "8")
    books.points[7] += 10
    expect(shop, books)
    assert [made["state"] for made in shop.runs()] == ["done", "done"]


def test_set(shop):
    expected = shop.books().with_points(25)
    configure(shop)
    run(shop, 0, "--set", "amount=25")
    expect(shop, expected)
    assert '"amount": 25' in json.dumps(shop.runs()[0]["params"])
    for argument, message in (("amount=0", "amount is 0"), ("amount=many", "amount"), ("amuont=3", "amount"),
                              ("amount", "NAME=VALUE")):
        result = run(shop, 2, "--set", argument)
        assert message in result.err
    assert len(shop.runs()) == 1


def test_dry_run_writes_nothing(shop):
    configure(shop, amount=-1200)
    before = shop.books()
    poor = sum(points < 1200 for points in before.points.values())
    result = run(shop, 0, "--dry-run")
    assert (f"points: would change {1000 - poor} rows, by -{1200 * (1000 - poor)} points, and leave {poor} as they are;"
            " the first keys: 200, 201, 202, 203, 204\n") == result.out, result
    assert shop.value("SELECT count(*) FROM roundsman.job") == 0 and shop.runs() == []
    expect(shop, before)
    # A condition that writes is stopped by the transaction itself.
    shop.sql("CREATE TABLE shop.noted (id bigint)")
    shop.sql("CREATE FUNCTION shop.note(bigint) RETURNS boolean LANGUAGE sql SECURITY DEFINER AS"
             " 'INSERT INTO shop.noted VALUES ($1); SELECT true'")
    configure(shop, where="shop.note(id)")
    result = run(shop, 1, "--dry-run")
    assert "read-only transaction" in result.err
    assert shop.value("SELECT count(*) FROM shop.noted") == 0


# ---- Keys and tables of every kind ----

KEYS = {
    "bigint": ("bigint", "n::bigint * 1000003"),
    "negative": ("integer", "n - 2000"),
    "extreme": ("bigint", "CASE WHEN n = 1 THEN -9223372036854775808 WHEN n = 3000 THEN 9223372036854775807"
                          " WHEN n < 2900 THEN n ELSE 1000000000000 * n::bigint END"),
    "uuid": ("uuid", "md5(n::text)::uuid"),
    "text": ("text", "CASE n % 8 WHEN 0 THEN 'Käse ' WHEN 1 THEN '\"quoted\" ' WHEN 2 THEN 'it''s \\ ' WHEN 3 THEN '%s {a,b} '"
                     " WHEN 4 THEN '' WHEN 5 THEN 'NULL ' WHEN 6 THEN E'tab\\tline\\n' ELSE '치킨 ' END || n"),
    "icu": ("text COLLATE \"de-x-icu\"", "(ARRAY['a', 'B', 'ä', 'Z', 'ß', '-', ' '])[1 + n % 7] || n"),
    "timestamptz": ("timestamptz", "'2026-01-01'::timestamptz + n * interval '1.000001 second'"),
    "numeric": ("numeric", "n / 8.0"),
    "bytea": ("bytea", "decode(md5(n::text), 'hex')"),
    "inet": ("inet", "'10.0.0.0'::inet + n"),
    "char": ("char(12)", "'k' || n"),
    "domain": ("shop.number", "n"),
}


@pytest.mark.parametrize("case", KEYS)
def test_keys(shop, case):
    """Three lanes over 3000 rows, with a locked and a failing one in each third: exactly once."""
    column, key = KEYS[case]
    shop.sql("CREATE DOMAIN shop.number AS bigint CHECK (VALUE > 0)")
    shop.sql(f"CREATE TABLE shop.people (k {column} PRIMARY KEY, n integer, points bigint NOT NULL DEFAULT 0)")
    shop.sql(f"INSERT INTO shop.people (k, n) SELECT {key}, n FROM generate_series(1, 3000) AS n"
             " ORDER BY n * 7919 % 3001")
    shop.sql("ANALYZE shop.people; GRANT SELECT, UPDATE ON shop.people TO roundsman")
    triggered(shop, "RAISE EXCEPTION 'no';", "NEW.n % 1000 = 123", "shop.people")
    configure(shop, pace="full", lanes=3, tables={"users": {"table": "shop.people", "key": "k", "touched": ""}})
    with shop.hold("SELECT FROM shop.people WHERE n % 1000 = 77 FOR NO KEY UPDATE"):
        run(shop, 10)
        assert shop.sql("SELECT n, points FROM shop.people WHERE points <> 10 ORDER BY n") == [
            (n, 0) for n in (77, 123, 1077, 1123, 2077, 2123)]
        # The keys are as the server writes them, in every session.
        shop.sql("SET timezone = 'UTC'")
        assert {left["key"] for left in shop.leftovers()} == {
            row[0] for row in shop.sql("SELECT k::text FROM shop.people WHERE points = 0")}
    lanes = tiled(shop, shop.value("SELECT p.k::text FROM shop.people AS p ORDER BY p.k DESC LIMIT 1"))
    assert len(lanes) == 3 and all(lane["rows_done"] > 500 for lane in lanes)
    shop.sql("DROP TRIGGER before ON shop.people")
    run(shop)
    assert shop.sql("SELECT points, count(*) FROM shop.people GROUP BY 1") == [(10, 3000)]
    one = shop.value("SELECT k::text FROM shop.people WHERE n = 5")
    run(shop, 0, "--only", one)
    assert shop.sql("SELECT n FROM shop.people WHERE points = 20") == [(5,)]


@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows(shop, rows):
    shop.populate(users=rows or 1, items=1, orders=0)
    if rows == 0:
        shop.sql("DELETE FROM shop.order_items; DELETE FROM shop.orders; DELETE FROM shop.users")
    expected = shop.books().with_points(10)
    configure(shop, pace="full", lanes=4)
    result = run(shop)
    assert f"done: {rows} row{'s' if rows != 1 else ''} changed" in result.out
    expect(shop, expected)
    assert [made["state"] for made in shop.runs()] == ["done"]


def test_names_that_need_quotes_and_a_timestamp_in_a_zone(shop):
    shop.sql('CREATE SCHEMA "My ""Shop"""')
    shop.sql('CREATE TABLE "My ""Shop"""."the Users" ("User Id" bigint PRIMARY KEY, "select" bigint NOT NULL,'
             ' "Last;Modified" timestamp)')
    shop.sql('INSERT INTO "My ""Shop"""."the Users" SELECT n, 1 FROM generate_series(1, 10) AS n')
    shop.sql('GRANT USAGE ON SCHEMA "My ""Shop""" TO roundsman; GRANT SELECT, UPDATE ON "My ""Shop"""."the Users" TO roundsman')
    configure(shop, tables={"users": {"table": 'My "Shop".the Users', "key": "User Id", "points": "select",
                                      "touched": "Last;Modified", "touched_zone": "Asia/Seoul"}})
    with shop.hold('SELECT FROM "My ""Shop"""."the Users" WHERE "User Id" = 3 FOR UPDATE'):
        run(shop, 10)
    run(shop)
    assert shop.sql('SELECT "select", count(*), max(abs(extract(epoch FROM now() AT TIME ZONE \'Asia/Seoul\''
                    ' - "Last;Modified"))) < 600 FROM "My ""Shop"""."the Users" GROUP BY 1') == [(11, 10, True)]


def test_a_table_partitioned_by_its_key(shop):
    shop.sql("CREATE TABLE shop.parted (id bigint PRIMARY KEY, points bigint NOT NULL) PARTITION BY RANGE (id)")
    for n in range(3):
        shop.sql(f"CREATE TABLE shop.parted{n} PARTITION OF shop.parted FOR VALUES FROM ({n * 1000}) TO ({n * 1000 + 1000})")
    shop.sql("INSERT INTO shop.parted SELECT n, 0 FROM generate_series(0, 2999) AS n; ANALYZE shop.parted")
    shop.sql("GRANT SELECT, UPDATE ON shop.parted TO roundsman")
    configure(shop, pace="full", lanes=2, tables={"users": {"table": "shop.parted", "touched": ""}})
    with shop.hold("SELECT FROM shop.parted WHERE id IN (999, 1000) FOR UPDATE"):
        run(shop, 10)
    assert len(tiled(shop, "2999")) == 2
    run(shop)
    assert shop.sql("SELECT points, count(*) FROM shop.parted GROUP BY 1") == [(10, 3000)]
    assert shop.runs()[0]["params"]["rows"] == 3000


def test_skewed_keys_are_parted_into_lanes_that_tile(shop):
    """All rows but a few have neighboring keys, far from the middle of the range."""
    shop.populate(users=5000, items=1, orders=0)
    shop.sql("INSERT INTO shop.users (id, name, points) VALUES (-4000000000000000000, 'a', 0), (4000000000000000000, 'z', 0)")
    shop.sql("ANALYZE shop.users")
    expected = shop.books().with_points(10)
    configure(shop, pace="full", lanes=4)
    run(shop)
    expect(shop, expected)
    lanes = tiled(shop, "4000000000000000000")
    assert len(lanes) == 4 and all(lane["rows_done"] > 700 for lane in lanes)


# ---- Live traffic comes first ----

def gate(shop, user=50):
    """A batch stays in its transaction at this user until the gate is opened."""
    shop.sql("CREATE TABLE shop.closed AS SELECT 1 AS one")
    triggered(shop, "WHILE EXISTS (SELECT FROM shop.closed) LOOP PERFORM pg_sleep(0.005); END LOOP;", f"NEW.id = {user}")


@pytest.mark.parametrize("careful", [False, True], ids=["plain", "careful"])
def test_new_orders_of_users_in_a_batch_do_not_wait(shop, careful):
    """The locks are no stronger than FOR NO KEY UPDATE, in the plain form of a batch and in the one that skips locked rows."""
    configure(shop, lock_timeout="100ms")
    gate(shop)
    expected = shop.books().with_points(10)
    with shop.hold("SELECT FROM shop.users WHERE id = %s FOR UPDATE", 30 if careful else 1000):
        with shop.start("--run-once", "points") as process, shop.connect() as live:
            waiting(shop, "Timeout")
            live.execute("SET lock_timeout = '2s'")
            live.execute("INSERT INTO shop.orders (user_id) VALUES (10), (29), (49), (50)")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                live.execute("SELECT FROM shop.users WHERE id = 10 FOR NO KEY UPDATE NOWAIT")
            # Rows that are not in the batch are free.
            live.execute("SELECT FROM shop.users WHERE id BETWEEN 101 AND 999 FOR UPDATE NOWAIT")
            shop.sql("DELETE FROM shop.closed")
            assert process.wait() == 10, process.log()
    run(shop)
    assert {key: old for key, old in shop.sql("SELECT id, points FROM shop.users")} == expected.points


def test_a_user_that_is_added_meanwhile_is_credited_once_at_most(shop):
    shop.sql("DELETE FROM shop.order_items; DELETE FROM shop.orders; DELETE FROM shop.users WHERE id = 900")
    configure(shop, batch_max=100)
    gate(shop, 250)
    with shop.start("--run-once", "points") as process:
        waiting(shop, "Timeout")
        shop.sql("INSERT INTO shop.users (id, name, points) VALUES (-5, 'behind', 0), (900, 'ahead', 0), (5000, 'later', 0)")
        shop.sql("DELETE FROM shop.closed")
        assert process.wait() == 0, process.log()
    assert shop.sql("SELECT id, points FROM shop.users WHERE id IN (-5, 900, 5000) ORDER BY 1") == [(-5, 0), (900, 10), (5000, 0)]
    assert shop.runs()[0]["rows_done"] == 1000


def test_the_last_user_goes_meanwhile(shop):
    """The range's end is a key that no row has any more."""
    shop.sql("DELETE FROM shop.order_items; DELETE FROM shop.orders")
    configure(shop, batch_max=100)
    gate(shop, 250)
    expected = shop.books().with_points(10)
    with shop.start("--run-once", "points") as process:
        waiting(shop, "Timeout")
        shop.sql("DELETE FROM shop.users WHERE id > 990")
        shop.sql("DELETE FROM shop.closed")
        assert process.wait() == 0, process.log()
    expected.points = {key: points for key, points in expected.points.items() if key <= 990}
    expect(shop, expected)


@pytest.mark.parametrize("key_type", ["bigint", "smallint"])
def test_keys_dense_here_and_sparse_there(shop, key_type):
    """Ends of batches are worked out where keys are dense, and looked for where they are not: all is done once, all the same."""
    shop.sql("ALTER TABLE shop.orders DROP CONSTRAINT orders_user_id_fkey; DELETE FROM shop.users;"
             f" ALTER TABLE shop.users ALTER id DROP IDENTITY, ALTER id TYPE {key_type};"
             " INSERT INTO shop.users (id, name) SELECT id, 'x' FROM generate_series(-32768, 32767) AS id"
             " WHERE id < -32000 OR id BETWEEN -100 AND 1500 OR id % 1000 = 0 OR id BETWEEN 5000 AND 9000 AND id % 3 <> 0"
             " OR id > 32700")
    recorded(shop)
    configure(shop, batch_max=100, batch_time="1s", pace="full")
    expected = shop.books().with_points(10)
    run(shop)
    expect(shop, expected)
    taken = batches(shop)
    assert max(map(len, taken)) == 100
    assert [key for keys in taken for key in keys] == [key for key, in shop.sql("SELECT id FROM shop.users ORDER BY id")]


def test_a_batch_takes_its_rows_in_key_order_and_no_more_than_batch_max(shop):
    """Whatever the order in the heap; also when it steps over a locked row."""
    configure(shop, batch_max=37, batch_time="1s")
    shop.sql("CREATE INDEX shuffled ON shop.users (md5(id::text)); CLUSTER shop.users USING shuffled; DROP INDEX shop.shuffled")
    shop.sql("ANALYZE shop.users")
    recorded(shop)
    with shop.hold("SELECT FROM shop.users WHERE id IN (20, 111) FOR UPDATE"):
        run(shop, 10)
    made = batches(shop)
    assert max(map(len, made)) == 37
    assert all(ids == sorted(ids) for ids in made)
    assert sorted(key for ids in made for key in ids) == [key for key in range(1, 1001) if key not in (20, 111)]


def test_the_batch_size_adapts(shop):
    """Twice as many rows each time while they are quick, few when they are slow."""
    configure(shop, batch_time="1s")
    recorded(shop, "IF NEW.points > 2000 THEN PERFORM pg_sleep(0.002); END IF;")
    run(shop)
    sizes = list(map(len, batches(shop)))
    assert sizes[0] == 100 and max(sizes) > 200
    shop.sql("TRUNCATE shop.record; UPDATE shop.users SET points = 5000 WHERE id > 500; TRUNCATE shop.record")
    configure(shop, batch_time="10ms", batch_max=100)
    run(shop)
    slow = [len(ids) for ids in batches(shop) if ids[0] > 500]
    assert max(slow[3:]) < 20 and len(slow) > 25, slow


def test_the_pipeline_leaves_no_transaction_open(shop):
    """A program that stands still holds no lock: a batch is sent whole, its end included."""
    configure(shop, batch_max=10)
    recorded(shop, "PERFORM pg_sleep(0.001);")
    with shop.start("--run-once", "points") as process:
        wait_until(lambda: shop.value("SELECT count(*) FROM shop.record") > 50)
        process.signal(19)  # SIGSTOP
        try:
            wait_until(lambda: not shop.sql("SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
                                            " AND application_name LIKE 'roundsman%' AND state <> 'idle'"),
                       what="its sessions to be idle, in no transaction")
            assert shop.sql("SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'roundsman%'"
                            " AND datname = current_database() AND backend_xmin IS NOT NULL") == []
            with shop.connect() as live:
                live.execute("SET lock_timeout = '2s'")
                live.execute("SELECT FROM shop.users FOR UPDATE")
        finally:
            process.signal(18)  # SIGCONT
        assert process.wait() == 0


# ---- Servers with defaults of their own ----

def test_defaults_of_the_database_do_not_matter(shop):
    expected = shop.books().with_points(10)
    shop.sql("CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC")
    shop.sql("CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT '1999-01-01'::timestamptz $$")
    shop.sql("CREATE TABLE evil.run (id integer)")
    shop.sql("GRANT SELECT (name) ON shop.users TO roundsman")
    for setting in ("default_transaction_isolation = 'serializable'", "default_transaction_read_only = on",
                    "default_transaction_deferrable = on", "search_path = evil, pg_catalog", "row_security = on",
                    "DateStyle = 'German'", "TimeZone = 'Asia/Seoul'", "IntervalStyle = 'sql_standard'",
                    "bytea_output = 'escape'", "enable_indexscan = off", "statement_timeout = '1ms'", "lock_timeout = '1ms'",
                    "plan_cache_mode = 'force_custom_plan'", "standard_conforming_strings = off",
                    "client_min_messages = 'debug1'", "idle_session_timeout = '1h'"):
        shop.sql(f'ALTER ROLE roundsman IN DATABASE "{shop.name}" SET {setting}')
    # The sessions themselves say in which isolation they change rows.
    triggered(shop, "RAISE EXCEPTION 'changed under %', current_setting('transaction_isolation');",
              "current_setting('transaction_isolation') <> 'read committed'")
    configure(shop, pace="full", lanes=2, where="name <> 'it''s'")
    with shop.hold("SELECT FROM shop.users WHERE id = 30 FOR UPDATE"):
        run(shop, 10)
    run(shop)
    expect(shop, expected)
    assert shop.value("SELECT min(last_modified_at) > now() - interval '10 minutes' FROM shop.users")
    assert shop.roundsman("--status").status in (0, 1)


def test_a_session_may_idle_while_the_others_work(shop):
    """The one that has the job's lock asks nothing for as long as the run goes on."""
    shop.sql(f'ALTER DATABASE "{shop.name}" SET idle_session_timeout = \'300ms\'')
    shop.pace(0.001)
    configure(shop, where="public.pace(id)")
    expected = shop.books().with_points(10)
    run(shop)
    expect(shop, expected)


def test_row_security_is_an_error_and_not_a_silence(shop):
    """A policy would hide rows from the round: some users would never get their points."""
    configure(shop)
    before = shop.books()
    shop.sql("ALTER TABLE shop.users ENABLE ROW LEVEL SECURITY")
    shop.sql("CREATE POLICY half ON shop.users USING (id % 2 = 0)")
    result = run(shop, 1)
    assert re.search("row.(level )?security", result.err), result
    expect(shop, before)


def test_row_security_that_comes_in_the_middle_of_a_run(shop):
    configure(shop, batch_max=100)
    gate(shop, 250)
    expected = shop.books().with_points(10)
    shop.sql("CREATE POLICY half ON shop.users USING (id % 2 = 0)")
    with shop.start("--run-once", "points") as process, shop.connect() as other:
        waiting(shop, "Timeout")
        # Its lock is the first in the queue when the batch at the gate is in.
        thread = threading.Thread(target=lambda: other.execute("ALTER TABLE shop.users ENABLE ROW LEVEL SECURITY"))
        thread.start()
        wait_until(lambda: shop.sql("SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'shop.users'::regclass"))
        shop.sql("DELETE FROM shop.closed")
        thread.join(20)
        assert process.wait() == 1, process.log()
        assert 'query would be affected by row-level security policy for table "users"' in process.log()
    shop.sql("ALTER TABLE shop.users DISABLE ROW LEVEL SECURITY")
    run(shop)
    expect(shop, expected)
