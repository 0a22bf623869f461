# SPDX-License-Identifier: PostgreSQL
"""Idle lanes take over half of what is left of a slow one, and the lanes tile the range at every moment."""

import signal

import pytest

from harness import JOBS, wait_until

USERS = 80000

# Some rows cost as much as some twenty others: lanes that share the rows equally do not share the work.
SLOW = """
    CREATE FUNCTION shop.slow() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM md5(repeat(new.id::text, 8000)); RETURN new; END $$;
    CREATE TRIGGER slow BEFORE UPDATE ON shop.users FOR EACH ROW WHEN (%s) EXECUTE FUNCTION shop.slow()
"""


def crowded(shop, lanes, slow, users=USERS):
    shop.populate(users=users, items=1, orders=0)
    shop.sql("ANALYZE shop.users")
    shop.sql(SLOW % slow)
    shop.configure(jobs=JOBS, defaults={"pace": "full", "lanes": lanes, "batch_max": 1000})
    return shop


@pytest.fixture
def crowd(shop):
    return crowded(shop, 2, f"new.id > {USERS // 2}")


def tiles(shop, users=USERS):
    """The lanes, in the order of their ranges, which must have neither gap nor overlap."""
    lanes = sorted(shop.lanes(), key=lambda lane: int(lane["range_to"]))
    assert lanes[0]["range_from"] is None and lanes[-1]["range_to"] == str(users)
    for left, right in zip(lanes, lanes[1:]):
        assert left["range_to"] == right["range_from"]
    return lanes


def test_an_idle_lane_takes_over_half_of_the_rest(crowd):
    expected = crowd.books().with_points(10000)
    done = crowd.roundsman("--run-once", "daily-points")
    assert done.status == 0, done.err
    assert crowd.books() == expected, crowd.books().explain(expected)
    lanes = tiles(crowd)
    assert len(lanes) > 2
    assert sum(lane["rows_done"] for lane in lanes) == USERS
    for lane in lanes:
        assert lane["cursor"] == lane["range_to"]
        assert lane["rows_done"] == int(lane["range_to"]) - int(lane["range_from"] or 0)


def test_several_idle_lanes_take_over_one_at_a_time(shop):
    """The slow rows are those of the first of four lanes: the others become idle while one of them looks for a middle."""
    users = 200000
    crowded(shop, 4, f"new.id <= {users // 4}", users)
    shop.sql("UPDATE pg_class SET reltuples = 5000 WHERE oid = 'shop.users'::regclass")  # it looks at all rows, and so for long
    expected = shop.books().with_points(10000)
    done = shop.roundsman("--run-once", "daily-points")
    assert done.status == 0, done.err
    assert shop.books() == expected, shop.books().explain(expected)
    lanes = tiles(shop, users)
    assert len(lanes) > 4
    for lane in lanes:
        assert lane["rows_done"] == int(lane["range_to"]) - int(lane["range_from"] or 0)


def test_below_full_pace_two_lanes_are_not_at_work_together(shop):
    """Half of the server is one of two lanes: no row of the second comes before the last one of the first."""
    shop.populate(users=USERS, items=1, orders=0)
    shop.sql("ANALYZE shop.users")
    shop.sql("CREATE SEQUENCE shop.turn; ALTER TABLE shop.users ADD turn bigint")
    shop.sql("CREATE FUNCTION shop.turn() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
             " $$ BEGIN new.turn := nextval('shop.turn'); RETURN new; END $$;"
             " CREATE TRIGGER turn BEFORE UPDATE ON shop.users FOR EACH ROW EXECUTE FUNCTION shop.turn()")
    shop.configure(jobs=JOBS, defaults={"pace": "normal", "lanes": 2, "batch_max": 1000})
    done = shop.roundsman("--run-once", "daily-points")
    assert done.status == 0, done.err
    first, second = tiles(shop)
    middle = int(first["range_to"])
    assert USERS // 4 < middle < USERS * 3 // 4
    assert shop.value(f"SELECT max(turn) FILTER (WHERE id <= {middle}) < min(turn) FILTER (WHERE id > {middle}) FROM shop.users")


def test_killed_after_a_lane_was_parted(crowd):
    expected = crowd.books().with_points(10000)
    with crowd.start("--run-once", "daily-points") as process:
        wait_until(lambda: len(crowd.lanes()) > 2, what="a lane is parted")
        process.signal(signal.SIGKILL)
        process.wait()
    assert any(lane["cursor"] != lane["range_to"] for lane in tiles(crowd))
    done = crowd.roundsman("--run-once", "daily-points")
    assert done.status == 0, done.err
    assert crowd.books() == expected, crowd.books().explain(expected)
    assert sum(lane["rows_done"] for lane in tiles(crowd)) == USERS
