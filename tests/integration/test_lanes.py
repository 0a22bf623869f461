# SPDX-License-Identifier: PostgreSQL
"""Idle lanes take over half of what is left of a slow one, and the lanes tile the range at every moment."""

import signal
import threading
import time

import pytest

from harness import JOBS, wait_until
from test_exactly_once import Hold, lock_waits
from wire import Proxy

USERS = 80000

# Some rows cost as much as some twenty others: lanes that share the rows equally do not share the work.
SLOW = """
    CREATE FUNCTION shop.slow() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM md5(repeat(new.id::text, 8000)); RETURN new; END $$;
    CREATE TRIGGER slow BEFORE UPDATE ON shop.users FOR EACH ROW WHEN (%s) EXECUTE FUNCTION shop.slow()
"""


@pytest.fixture
def crowd(shop):
    shop.populate(users=USERS, items=1, orders=0)
    shop.sql("ANALYZE shop.users")
    shop.sql(SLOW % f"new.id > {USERS // 2}")
    shop.configure(jobs=JOBS, defaults={"pace": "full", "lanes": 2, "batch_max": 1000})
    return shop


def tiles(shop):
    """The lanes, in the order of their ranges, which must have neither gap nor overlap."""
    lanes = sorted(shop.lanes(), key=lambda lane: int(lane["range_to"]))
    assert lanes[0]["range_from"] is None and lanes[-1]["range_to"] == str(USERS)
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


@pytest.mark.parametrize("lanes, made", [(1, 1), (2, 1), (4, 2)])
def test_below_full_pace_there_are_no_more_lanes_than_may_work_at_a_time(shop, lanes, made):
    shop.populate(users=5000, items=1, orders=0)
    shop.sql("ANALYZE shop.users")
    shop.configure(jobs=JOBS, defaults={"pace": "normal", "lanes": lanes})
    done = shop.roundsman("--run-once", "daily-points")
    assert done.status == 0, done.err
    assert len(shop.lanes()) == made


def test_below_full_pace_two_lanes_are_not_at_work_together(crowd):
    """A run that began at full pace, with two lanes, and goes on at half of it: no row of the second comes before the first is done."""
    crowd.sql("CREATE SEQUENCE shop.turn; ALTER TABLE shop.users ADD turn bigint NOT NULL DEFAULT 0")
    with crowd.start("--run-once", "daily-points") as process:
        wait_until(lambda: any(lane["cursor"] for lane in crowd.lanes()), what="the first batch")
        process.signal(signal.SIGKILL)
        process.wait()
    crowd.sql("CREATE OR REPLACE FUNCTION shop.slow() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
              " $$ BEGIN new.turn := nextval('shop.turn'); RETURN new; END $$;"
              " DROP TRIGGER slow ON shop.users;"
              " CREATE TRIGGER turn BEFORE UPDATE ON shop.users FOR EACH ROW EXECUTE FUNCTION shop.slow()")
    crowd.configure(jobs=JOBS, defaults={"pace": "normal", "lanes": 2, "batch_max": 1000})
    done = crowd.roundsman("--run-once", "daily-points")
    assert done.status == 0, done.err
    middle = int(tiles(crowd)[0]["range_to"])
    assert USERS // 4 < middle < USERS * 3 // 4
    first, second = crowd.sql("SELECT max(turn) FILTER (WHERE id <= %s), min(turn) FILTER (WHERE id > %s) FROM shop.users"
                              " WHERE turn > 0", middle, middle)[0]
    assert first < second


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


def test_killed_while_a_lane_is_parted(crowd):
    """What was sent is committed after the death: whoever takes the run up has the new lane's attempt as well."""
    expected = crowd.books().with_points(10000)
    with Hold(crowd, "roundsman.lane", "NEW.lane >= 2", "INSERT") as hold:
        with crowd.start("--run-once", "daily-points") as process:
            hold.reached(process)
            process.signal(signal.SIGKILL)
            process.wait()
        with crowd.start("--run-once", "daily-points") as fresh:
            wait_until(lambda: fresh.popen.poll() is not None or lock_waits(crowd), what="the next process to wait, or to end")
            hold.release()
            assert fresh.wait(60) == 0, fresh.log()
    assert len(tiles(crowd)) > 2
    assert {lane["attempt"] for lane in crowd.lanes()} == {2}
    assert crowd.books() == expected, crowd.books().explain(expected)


class Apart(Proxy):
    """
    The first idle lane is told the middle late, when a second one has asked for it, too; and what the lane that is parted
    sends after that comes late: as on a network that is slow for a moment.
    """

    def __init__(self, shop):
        super().__init__(shop)
        self.asked, self.parted = [], []
        self.second, self.again = threading.Event(), threading.Event()

    def transaction(self, link, unit):
        if b"\0middle\0" in unit and b"percentile" not in unit:
            self.asked.append(link)
            if len(self.asked) > 1:
                self.second.set()
            else:
                self.second.wait(2)
                time.sleep(0.05)
        elif b"\0part\0" in unit and b"range_to" not in unit:
            self.parted.append(link)
            if len(self.parted) > 1:
                super().transaction(link, unit)
                time.sleep(0.2)
                self.again.set()
                return
        elif len(self.parted) == 1 and link is self.links[1]:
            self.again.wait(1)
            self.again.set()
        super().transaction(link, unit)


def test_two_lanes_that_fall_idle_together(shop):
    """One after the other takes over: the middle that the second was told is none any more when the first has parted the lane."""
    shop.populate(users=USERS, items=1, orders=0)
    shop.sql("ANALYZE shop.users")
    # The first third is slow, the second less so: the last lane falls idle first, the one before it soon after.
    shop.sql((SLOW % f"new.id <= {USERS * 2 // 3}").replace("8000", f"CASE WHEN new.id <= {USERS // 3} THEN 8000 ELSE 2000 END"))
    expected = shop.books().with_points(10000)
    with Apart(shop) as proxy:
        shop.configure(jobs=JOBS, defaults={"pace": "full", "lanes": 3, "batch_max": 1000},
                       database={"conninfo": proxy.conninfo})
        done = shop.roundsman("--run-once", "daily-points")
        tiles(shop)
        assert proxy.parted
    assert done.status == 0, done
    assert shop.books() == expected, shop.books().explain(expected)
    assert sum(lane["rows_done"] for lane in tiles(shop)) == USERS


def test_what_was_planned_beyond_the_new_end_is_forgotten(shop):
    """The batch after the one in flight, planned along with it, would go as far as the lane did before it was parted."""
    shop.populate(users=2 * USERS, items=1, orders=0)
    shop.sql("UPDATE shop.users SET id = 1000000 + 3 * id; ANALYZE shop.users")  # not neighbors: ends are looked for in advance
    shop.configure(jobs=JOBS, defaults={"pace": "full", "lanes": 2, "batch_time": "10s", "batch_max": 100000})
    expected = shop.books().with_points(10000)
    with Hold(shop, "shop.users", "OLD.id = 1000000 + 3 * 125000") as hold, shop.start("--run-once", "daily-points") as process:
        hold.reached(process)
        wait_until(lambda: any(lane["lane"] == 0 and lane["cursor"] == lane["range_to"] for lane in shop.lanes()),
                   what="the first lane's end")
        hold.release()
        assert process.wait(60) == 0, process.log()
    assert len(shop.lanes()) > 2
    assert sum(lane["rows_done"] for lane in shop.lanes()) == 2 * USERS
    assert shop.books() == expected, shop.books().explain(expected)


@pytest.mark.parametrize("change", ["attempt = 2", "cursor = (cursor::bigint + 1)::text", "range_to = (range_to::bigint - 1)::text"])
def test_a_lane_that_is_not_as_it_was_is_not_parted(crowd, change):
    """Another process took the run up, or went on with the lane, or parted it, a moment before."""
    with Proxy(crowd) as proxy:
        crowd.configure(jobs=JOBS, defaults={"pace": "full", "lanes": 2, "batch_max": 1000},
                        database={"conninfo": proxy.conninfo})

        def judge(_, unit):
            if b"\0part\0" in unit and b"range_to" not in unit:
                crowd.sql(f"UPDATE roundsman.lane SET {change}")

        proxy.arm(judge)
        done = crowd.roundsman("--run-once", "daily-points")
    assert done.status == 1 and "another process has taken the run up" in done.err, done
    assert len(crowd.lanes()) == 2


@pytest.mark.parametrize("statement", ["c", "s", "l"])
def test_a_process_that_was_fenced_changes_and_leaves_nothing(crowd, statement):
    """Another one takes the run up a moment before a batch: the plain one, the careful one, the row that is left over."""
    crowd.sql("DROP TRIGGER slow ON shop.users; UPDATE shop.users SET points = 9223372036854775807 WHERE id = 100")
    with Proxy(crowd) as proxy, crowd.hold("SELECT FROM shop.users WHERE id = 50 AND %s FOR UPDATE", statement == "s"):
        crowd.configure(jobs=JOBS, defaults={"lanes": 1, "batch_max": 1000}, database={"conninfo": proxy.conninfo})
        then = []

        def judge(_, unit):
            if not then and any(b"\0" + name.encode() + b"\0" in unit for name in (statement + "0", statement + "1")) \
                    and b"rm_gate" not in unit:
                crowd.sql("UPDATE roundsman.run SET attempt = 2")
                crowd.sql("UPDATE roundsman.lane SET attempt = 2")
                then.append((crowd.books(), crowd.leftovers()))

        proxy.arm(judge)
        done = crowd.roundsman("--run-once", "daily-points")
        assert done.status == 1 and "another process has taken the run up" in done.err, done
        assert (crowd.books(), crowd.leftovers()) == then[0]
