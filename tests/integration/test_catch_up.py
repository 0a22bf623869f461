# SPDX-License-Identifier: PostgreSQL
"""Which occurrences are owed, to whom time says so, and in which order --run-once does what applies."""

import datetime
import re
import time

import pytest

from harness import YEARLY, wait_until

DAILY = "0 0 * * *"
DAY = datetime.timedelta(days=1)
MICROSECOND = datetime.timedelta(microseconds=1)


def midnight():
    return datetime.datetime.now(datetime.timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)


def rfc3339(moment):
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def configure(shop, schedule=DAILY, **settings):
    job = {"name": "points", "kind": "points", "schedule": schedule, "amount": 10, "catch_up": "all", **settings}
    top = {key: job.pop(key) for key in list(job) if key in ("max_clock_skew", "ledger")}
    return shop.configure(jobs=[job], **top)


def seen(shop, settled, schedule=DAILY, zone="UTC", enabled=True):
    """The job's row as an earlier daemon left it."""
    shop.sql("INSERT INTO roundsman.job (name, kind, schedule, timezone, enabled, first_seen, settled_through)"
             " VALUES ('points', 'points', %s, %s, %s, %s, %s)", schedule, zone, enabled, settled - 30 * DAY, settled)


def settled(shop):
    return shop.value("SELECT settled_through FROM roundsman.job")


def run(shop, status=0, *more, faketime=None):
    result = shop.roundsman("--run-once", "points", *more, faketime=faketime)
    assert result.status == status, result
    return result


def made(shop):
    return [(run["due"], run["trigger"], run["state"]) for run in shop.runs()]


def skipped(shop):
    return shop.sql("SELECT due_from, due_through, occurrences, reason FROM roundsman.skip ORDER BY id")


def by_daemon(shop, until):
    """A daemon from its start until the condition; its log."""
    with shop.start("-v", "-v") as daemon:
        daemon.wait_for(" started: ")
        wait_until(until, what="the daemon to settle")
        assert daemon.stop() == 0
        return daemon.log()


def fails(shop):
    """Until it is mended, the change fails in a way that no other row would fare better with: so do ten in a row."""
    shop.sql("CREATE FUNCTION shop.fail() RETURNS trigger LANGUAGE plpgsql AS"
             " $$ BEGIN RAISE EXCEPTION 'no such thing' USING ERRCODE = '42P01'; END $$")
    shop.sql("CREATE TRIGGER fail BEFORE UPDATE ON shop.users FOR EACH ROW WHEN (NEW.id BETWEEN 500 AND 509) EXECUTE FUNCTION shop.fail()")


def mend(shop):
    shop.sql("DROP TRIGGER fail ON shop.users")


# ---- What is owed ----

def test_a_job_that_is_first_seen_owes_nothing(shop):
    configure(shop, "* * * * *")
    log = by_daemon(shop, lambda: shop.sql("SELECT 1 FROM roundsman.job"))
    assert made(shop) == [] or all(due > settled(shop) - DAY / 1000 for due, *_ in made(shop)), log
    shop.sql("DELETE FROM roundsman.lane; DELETE FROM roundsman.run; DELETE FROM roundsman.job")
    configure(shop)
    assert "making an extra run" in run(shop).err
    assert [(due, trigger) for due, trigger, _ in made(shop)] == [(None, "manual")]
    assert shop.value("SELECT first_seen = settled_through AND first_seen > now() - interval '1 minute' FROM roundsman.job")


@pytest.mark.parametrize("who", ["tool", "daemon"])
def test_catch_up_all_is_oldest_first(shop, who):
    today = midnight()
    configure(shop)
    seen(shop, today - 4 * DAY)
    expected = shop.books().with_points(40)
    if who == "tool":
        result = run(shop)
        assert f"settling the 4 owed occurrences from {rfc3339(today - 3 * DAY)} to {rfc3339(today)}" in result.err
    else:
        by_daemon(shop, lambda: settled(shop) == today and made(shop)[-1][2] == "done")
    assert made(shop) == [(today - n * DAY, "catch_up", "done") for n in (3, 2, 1, 0)]
    assert settled(shop) == today and skipped(shop) == []
    assert shop.books() == expected


@pytest.mark.parametrize("who", ["tool", "daemon"])
def test_catch_up_latest_records_the_others(shop, who):
    today = midnight()
    configure(shop, catch_up="latest")
    seen(shop, today - 4 * DAY)
    if who == "tool":
        assert f"settling the occurrence {rfc3339(today)}, the latest of 4 that are owed" in run(shop).err
    else:
        log = by_daemon(shop, lambda: made(shop) and made(shop)[-1][2] == "done")
        assert "skipped 3 occurrences" in log
    assert made(shop) == [(today, "catch_up", "done")]
    assert skipped(shop) == [(today - 3 * DAY, today - DAY, 3, "catch_up is latest")]
    assert settled(shop) == today


@pytest.mark.parametrize("who", ["tool", "daemon"])
def test_catch_up_none_records_all(shop, who):
    today = midnight()
    configure(shop, catch_up="none")
    seen(shop, today - 4 * DAY)
    if who == "tool":
        assert "making an extra run" in run(shop).err
        assert made(shop) == [(None, "manual", "done")]
    else:
        by_daemon(shop, lambda: settled(shop) == today)
        assert made(shop) == []
    assert skipped(shop) == [(today - 3 * DAY, today, 4, "catch_up is none")]


def test_catch_up_none_still_runs_what_is_on_time(shop):
    configure(shop, "* * * * * *", catch_up="none")
    seen(shop, datetime.datetime.now(datetime.timezone.utc) - DAY / 24, "* * * * * *")
    with shop.start() as daemon:
        wait_until(lambda: len([1 for _, trigger, state in made(shop) if (trigger, state) == ("schedule", "done")]) >= 2)
        assert daemon.stop() == 0
    assert {trigger for _, trigger, _ in made(shop)} == {"schedule"}
    assert sum(row[2] for row in skipped(shop)) >= 3598


def test_what_is_older_than_catch_up_max_age_is_skipped(shop):
    today = midnight()
    configure(shop, catch_up_max_age="49h")
    seen(shop, today - 10 * DAY)
    run(shop)
    (first, last, count, reason), = skipped(shop)
    assert (first, reason) == (today - 9 * DAY, "older than catch_up_max_age")
    old = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=49)
    assert last <= old < last + DAY and count == (last - first) / DAY + 1
    assert [due for due, *_ in made(shop)] == [last + n * DAY for n in range(1, (today - last) // DAY + 1)]
    assert settled(shop) == today


def test_what_was_asked_for_by_due_is_not_run_again(shop):
    today = midnight()
    configure(shop)
    seen(shop, today - 4 * DAY)
    expected = shop.books().with_points(40)
    run(shop, 0, "--due", rfc3339(today - DAY))
    assert settled(shop) == today - 4 * DAY, "an occurrence out of order settles no other"
    run(shop)
    assert sorted(made(shop)) == [(today - n * DAY, "catch_up", "done") for n in (3, 2, 1, 0)]
    assert shop.books() == expected
    assert settled(shop) == today


# ---- What the file changes ----

@pytest.mark.parametrize("change, said", [({"schedule": "0 0 1 * *"}, "the changed schedule takes effect"),
                                          ({"zone": "Asia/Seoul"}, "the changed schedule takes effect"),
                                          ({"enabled": False}, "points: enabled")], ids=["schedule", "zone", "enabled"])
def test_a_change_owes_nothing_from_before_and_takes_effect_with_a_daemon(shop, change, said):
    today = midnight()
    configure(shop)
    seen(shop, today - 4 * DAY, **change)
    result = run(shop)
    assert "takes effect when a daemon starts or reloads" in result.err
    assert made(shop) == [(None, "manual", "done")] and settled(shop) == today - 4 * DAY
    began = shop.value("SELECT now()")
    log = by_daemon(shop, lambda: settled(shop) >= began)
    assert said + ': "0 0 * * *" in UTC; nothing from before now is owed' in log
    assert len(made(shop)) == 1
    assert shop.sql("SELECT schedule, timezone, enabled FROM roundsman.job") == [(DAILY, "UTC", True)]


def test_a_change_does_not_move_settled_through_back(shop):
    """Settled by a host whose clock is a little ahead, within max_clock_skew."""
    configure(shop)
    ahead = shop.value("SELECT now() + interval '20 seconds'")
    seen(shop, ahead, schedule="0 0 1 * *")
    by_daemon(shop, lambda: shop.value("SELECT schedule FROM roundsman.job") == DAILY)
    assert settled(shop) == ahead


def test_a_changed_kind_is_named(shop):
    """It takes what is owed with it: only the schedule's change ends that."""
    today = midnight()
    configure(shop)
    seen(shop, today - DAY)
    shop.sql("UPDATE roundsman.job SET kind = 'restock'")
    assert 'in UTC (enabled, kind restock), and this process "0 0 * * *" in UTC (enabled, kind points)' in run(shop).err
    log = by_daemon(shop, lambda: settled(shop) == today)
    assert "the changed kind takes effect: it is points, and was restock" in log and "the changed schedule" not in log


def test_another_daemons_old_schedule_fails_loudly(shop):
    configure(shop, "* * * * * *", retry_delay="1s")
    with shop.start() as daemon:
        wait_until(lambda: [1 for *_, state in made(shop) if state == "done"], what="a round")
        # Another daemon has read the edited file.
        shop.sql("UPDATE roundsman.job SET schedule = '0 * * * * *', settled_through = now()")
        daemon.wait_for(r'error: points.*: the ledger has schedule "0 \* \* \* \* \*" in UTC \(enabled\), and this process "\* \*')
        runs = len(shop.runs())
        daemon.wait_for("(?s)the ledger has schedule.*the ledger has schedule")
        assert len(shop.runs()) == runs
        # This one is told as well, and has the last word.
        daemon.signal(1)
        daemon.wait_for(r'the changed schedule takes effect: "\* \* \* \* \* \*"')
        wait_until(lambda: len(shop.runs()) > runs, what="the next round")
        assert daemon.stop() == 0


def test_a_disabled_job(shop):
    today = midnight()
    configure(shop)
    seen(shop, today - 2 * DAY)
    fails(shop)
    run(shop, 1)
    mend(shop)
    assert made(shop) == [(today - DAY, "catch_up", "failed")]
    path = configure(shop, enabled=False)
    with shop.start("-v", "-v") as daemon:
        daemon.wait_for("disabled")
        wait_until(lambda: shop.value("SELECT NOT enabled FROM roundsman.job"))
        for more in ((), ("--dry-run",)):
            result = run(shop, 1, *more)
            assert "is not resumed while the job is disabled" in result.err and "would" not in result.err
        assert made(shop) == [(today - DAY, "catch_up", "failed")]
        # Enabled again: the unfinished run goes on, what fell due meanwhile is not owed.
        path.write_text(path.read_text().replace("enabled = false", "enabled = true"))
        daemon.signal(1)
        wait_until(lambda: made(shop)[0][2] == "done")
        assert daemon.stop() == 0
    assert made(shop) == [(today - DAY, "catch_up", "done")]
    assert settled(shop) > today


def test_no_run_of_a_disabled_job_is_made_by_hand_either(shop):
    """Nobody could finish it."""
    today = midnight()
    configure(shop, lock_timeout="10ms")
    seen(shop, today - DAY)
    with shop.hold("SELECT FROM shop.users WHERE id = 7 FOR UPDATE"):
        run(shop, 10)
    configure(shop, enabled=False)
    for more in (("--only", "1"), ("--due", rfc3339(today - DAY))):
        assert "no run is made while the job is disabled" in run(shop, 1, *more).err
        assert "no run is made while the job is disabled" in run(shop, 1, *more, "--dry-run").err
    assert "is partial, and is not resumed while the job is disabled" in run(shop, 1).err
    assert made(shop) == [(today, "catch_up", "partial")]


# ---- --due ----

def test_due_is_refused(shop):
    today = midnight()
    configure(shop)
    seen(shop, today)
    for due, status, message in (
            (today + MICROSECOND, 2, "no instant of the schedule"), (today - DAY / 2, 2, "no instant of the schedule"),
            (today + DAY, 2, "is in the future"), (today + 365 * DAY, 2, "is in the future")):
        result = run(shop, status, "--due", due.isoformat())
        assert message in result.err, result
    for text in ("yesterday", "2026-01-01", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z", ""):
        assert "is no RFC 3339 time" in run(shop, 2, "--due", text).err
    assert made(shop) == [] and settled(shop) == today
    # A rehearsal is no exception, also of a job that the ledger has never seen.
    shop.sql("DELETE FROM roundsman.job")
    for due, status, message in ((today + DAY, 2, "is in the future"), (today, 0, "dry run: would settle the occurrence")):
        assert message in run(shop, status, "--due", rfc3339(due), "--dry-run").err
    assert shop.sql("SELECT 1 FROM roundsman.job") == []


def test_due_twice_is_once(shop):
    today = midnight()
    configure(shop)
    seen(shop, today)
    expected = shop.books().with_points(10)
    run(shop, 0, "--due", rfc3339(today - 3 * DAY))
    result = run(shop, 0, "--due", (today - 3 * DAY).astimezone(datetime.timezone(datetime.timedelta(hours=9))).isoformat())
    assert re.search(r"nothing to do: .* is settled already, by run \d+ \(done\)", result.err)
    assert made(shop) == [(today - 3 * DAY, "catch_up", "done")]
    assert shop.books() == expected
    # Long before the job was first seen: a backfill.
    run(shop, 0, "--due", rfc3339(today - 300 * DAY))
    assert len(made(shop)) == 2
    assert settled(shop) == today


def test_due_from_a_time_whose_runs_were_deleted(shop):
    today = midnight()
    configure(shop, ledger={"keep": "1d"})
    seen(shop, today)
    for n in (5, 3):
        run(shop, 0, "--due", rfc3339(today - n * DAY))
    shop.sql("UPDATE roundsman.run SET finished_at = now() - interval '2 days', reported_at = now() - interval '2 days'")
    by_daemon(shop, lambda: made(shop) == [])
    for n in (5, 4, 3):
        result = run(shop, 1, "--due", rfc3339(today - n * DAY))
        assert "deleted by ledger.keep" in result.err
    run(shop, 0, "--due", rfc3339(today - 2 * DAY))
    run(shop, 0, "--due", rfc3339(today - 6 * DAY))
    assert len(made(shop)) == 2


def test_due_beside_an_unfinished_run_names_it(shop):
    today = midnight()
    configure(shop)
    seen(shop, today)
    fails(shop)
    run(shop, 1, "--due", rfc3339(today))
    result = run(shop, 2, "--due", rfc3339(today - DAY))
    assert re.search(r"--due is refused while run \d+ \(.*, failed\) is unfinished: .*--run-once points.*--abandon points -n \d+",
                     result.err), result
    result = run(shop, 2, "--only", "1")
    assert "--only is refused while run" in result.err
    result = run(shop, 2, "--set", "amount=3")
    assert "--set is refused while run" in result.err
    mend(shop)
    run(shop, 0, "--due", rfc3339(today))
    assert made(shop) == [(today, "catch_up", "done")]


# ---- The order of --run-once ----

def test_finish_then_settle_then_an_extra_run(shop):
    today = midnight()
    configure(shop)
    seen(shop, today - 2 * DAY)
    before = shop.books()
    fails(shop)
    result = run(shop, 1)
    assert "no such thing (SQLSTATE 42P01)" in result.err
    mend(shop)
    rehearsal = run(shop, 0, "--dry-run")
    dry = [rehearsal.err]
    assert re.search(r"points: run 1 due \S+ failed: 499 rows changed so far, 1 left over, about 500 to be looked at\n", rehearsal.out), rehearsal
    assert "finishing run 1" in run(shop).err
    assert made(shop) == [(today - DAY, "catch_up", "done")]
    dry.append(run(shop, 0, "--dry-run").err)
    assert f"settling the owed occurrence {rfc3339(today)}" in run(shop).err
    assert made(shop)[1:] == [(today, "catch_up", "done")]
    dry.append(run(shop, 0, "--dry-run").err)
    assert "making an extra run" in run(shop).err
    assert made(shop)[2:] == [(None, "manual", "done")]
    for said, would in zip(dry, ("would finish run 1", "would settle the owed", "would make an extra run")):
        assert would in said
    assert shop.books() == before.with_points(30)
    assert settled(shop) == today


def test_only_what_was_announced_is_settled(shop):
    """Another occurrence falls due while a leftover is retried: it was not announced, and is the next command's."""
    configure(shop, lock_timeout="10ms")
    seen(shop, midnight() - DAY)
    with shop.hold("SELECT FROM shop.users WHERE id = 7 FOR UPDATE"):
        run(shop, 10)
    configure(shop, "* * * * * *")
    shop.sql("CREATE FUNCTION shop.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1.1); RETURN NEW; END $$")
    shop.sql("CREATE TRIGGER slow BEFORE UPDATE ON shop.users FOR EACH ROW WHEN (NEW.id = 7) EXECUTE FUNCTION shop.slow()")
    shop.sql("UPDATE roundsman.leftover SET next_attempt = now()")
    shop.sql("UPDATE roundsman.job SET schedule = '* * * * * *', settled_through = now() - interval '1.5 seconds'")
    announced = re.findall(r"\d{4}-\S+?Z", re.search("settling the .*", run(shop).err)[0])
    assert rfc3339(settled(shop)) == announced[-1]


def test_nothing_is_announced_that_cannot_be_begun(shop):
    configure(shop, YEARLY)
    result = run(shop, 2, "--only", "seven")
    assert "making" not in result.err and "--only seven: invalid input syntax" in result.err


def test_rows_left_over_are_what_the_next_command_is_for(shop):
    """It says so, also when it is only rehearsed, and how to come by one more round. Keys are listed as numbers are."""
    configure(shop, YEARLY, lock_timeout="10ms")
    with shop.hold("SELECT FROM shop.users WHERE id BETWEEN 2 AND 12 FOR UPDATE"):
        assert "left over: key 7," in run(shop, 10).out
        rehearsal, result = run(shop, 0, "--dry-run"), run(shop, 10)
    assert "dry run: would retry the 11 rows that run 1 (manual) left over, and nothing else" in rehearsal.err
    assert "points: manual run 1 partial: 989 rows changed so far, 11 left over\n" in rehearsal.out
    for out in (rehearsal.out, result.out):
        assert re.findall(r"left over: key (\d+), locked", out) == [str(n) for n in range(2, 12)]
    assert re.search(r"retrying the 11 rows that run 1 \(manual\) left over, and nothing else \(for an extra run, .*"
                     r"--abandon points -n 1, or .* --only or --set\)", result.err)
    assert run(shop).out == "points: manual run 1 done: 1000 rows changed; its last leftover is settled\n"
    assert "points: manual run 2 done: 1 row changed\n" == run(shop, 0, "--only", "1").out
    assert made(shop) == [(None, "manual", "done")] * 2


def test_a_rehearsal_says_what_is_the_matter(shop):
    """As the command does: nothing that fails in the examination hides behind its own consequences."""
    shop.sql("CREATE FUNCTION shop.give(bigint) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'")
    for wrong in ({"kind": "cancel", "call": "shop.nothing"}, {"kind": "cancel", "call": "shop.give"},
                  {"kind": "points", "amount": 1, "where": "nothing > 1"}):
        shop.configure(jobs=[{"name": "points", "schedule": YEARLY, **wrong}])
        rehearsal, result = run(shop, 1, "--dry-run"), run(shop, 1)
        assert rehearsal.err == result.err and "aborted" not in result.err, result


def test_a_failed_extra_run_is_finished_and_not_made_again(shop):
    configure(shop, YEARLY)
    before = shop.books()
    fails(shop)
    run(shop, 1)
    run(shop, 1)
    mend(shop)
    assert "finishing run 1 (manual, failed)" in run(shop).err
    assert made(shop) == [(None, "manual", "done")]
    assert shop.books() == before.with_points(10)


def test_the_daemon_leaves_manual_runs_alone(shop):
    configure(shop, YEARLY)
    fails(shop)
    run(shop, 1)
    mend(shop)
    by_daemon(shop, lambda: shop.value("SELECT count(*) FROM roundsman.job") == 1)
    assert made(shop) == [(None, "manual", "failed")]


# ---- Clocks ----

# Ahead by less than the machine has been up: libfaketime moves the time that timers count from its start, too.
@pytest.mark.parametrize("shift, apart", [("+50s", "(49|50) s"), ("-1h", "(3599|3600) s")])
def test_a_clock_apart_settles_nothing_loudly(shop, shift, apart):
    today = midnight()
    configure(shop)
    seen(shop, today - 2 * DAY)
    result = run(shop, 1, faketime=shift)
    assert re.search(rf"the clocks disagree by {apart} \(this host: 2\S+Z, database: 2\S+Z\): nothing is settled", result.err), result
    with shop.start(faketime=shift) as daemon:
        daemon.wait_for(f"error: points: the clocks disagree by {apart}")
        assert daemon.stop() == 0
    assert made(shop) == [] and settled(shop) == today - 2 * DAY
    # It is a setting.
    configure(shop, max_clock_skew="2h")
    run(shop, 0, faketime=shift)
    assert len(made(shop)) >= 1 and settled(shop) <= shop.value("SELECT now()")


def test_no_occurrence_before_the_databases_clock_has_come_there(shop):
    """The host is ten seconds ahead, which is allowed: the database's clock decides."""
    configure(shop, "* * * * * *", max_clock_skew="30s")
    with shop.start(faketime="+3s") as daemon:
        wait_until(lambda: len([1 for *_, state in made(shop) if state == "done"]) >= 2, what="two rounds")
        daemon.stop()
    assert shop.value("SELECT bool_and(due <= started_at) FROM roundsman.run")


def test_settled_in_the_future_stops_the_job_loudly(shop):
    configure(shop)
    seen(shop, midnight() + 3 * DAY)
    for result in (run(shop, 1), run(shop, 1, "--due", rfc3339(midnight()))):
        assert re.search(r"the ledger says that all is settled through 2\S+Z, and the database's clock says 2\S+Z: nothing is settled",
                         result.err), result
    with shop.start() as daemon:
        daemon.wait_for("error: points: the ledger says that all is settled through")
        assert daemon.stop() == 0
    assert made(shop) == [] and settled(shop) == midnight() + 3 * DAY


def test_jitter_moves_the_start_and_not_the_occurrence(shop):
    configure(shop, "* * * * * *", jitter="900ms")
    with shop.start() as daemon:
        wait_until(lambda: len(shop.runs()) >= 2, what="two rounds")
        daemon.stop()
    assert all(due.microsecond == 0 for due, *_ in made(shop))


def test_max_runtime_interrupts_run_once(shop):
    configure(shop, YEARLY, max_runtime="1s", batch_max=5)
    before = shop.books()
    shop.sql("CREATE FUNCTION shop.slow() RETURNS trigger LANGUAGE plpgsql AS"
             " $$ BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END $$")
    shop.sql("CREATE TRIGGER slow BEFORE UPDATE ON shop.users FOR EACH ROW EXECUTE FUNCTION shop.slow()")
    result = run(shop, 11)
    assert "max_runtime (1s) is over" in result.err, result
    assert made(shop) == [(None, "manual", "interrupted")]
    assert 0 < shop.runs()[0]["rows_done"] < 1000
    shop.sql("DROP TRIGGER slow ON shop.users")
    configure(shop, YEARLY)
    run(shop)
    assert shop.books() == before.with_points(10)
