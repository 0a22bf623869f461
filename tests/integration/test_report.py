# SPDX-License-Identifier: PostgreSQL
"""--status, --history and --next: each condition is written into the ledger by hand, and must be told as documented."""

import json
import re
import subprocess
from datetime import timedelta, timezone

import pytest

from harness import JOBS, YEARLY, wait_until

LOCK_CLASS = 1919184238


@pytest.fixture
def ledger(shop):
    """A shop whose jobs a daemon has seen a moment ago."""
    shop.configure()
    for job in JOBS:
        see(shop, job["name"], job["kind"])
    return shop


def see(shop, name, kind="restock", schedule=YEARLY, zone="UTC", enabled=True, settled="0 s"):
    return shop.value("INSERT INTO roundsman.job (name, kind, schedule, timezone, enabled, settled_through)"
                      " VALUES (%s, %s, %s, %s, %s, now() - %s::interval) RETURNING id",
                      name, kind, schedule, zone, enabled, settled)


def run(shop, job, state, due=None, error=None, done=0, skipped=0, attempt=1, finished=True):
    return shop.value("INSERT INTO roundsman.run (job_id, due, trigger, state, attempt, params, rows_done, rows_skipped,"
                      " started_at, finished_at, error)"
                      " SELECT id, %s::timestamptz, CASE WHEN %s::text IS NULL THEN 'manual' ELSE 'schedule' END, %s, %s,"
                      " '{}', %s, %s, now() - interval '65 s', CASE WHEN %s THEN now() END, %s"
                      " FROM roundsman.job WHERE name = %s RETURNING id",
                      due, due, state, attempt, done, skipped, finished, error, job)


def status(shop, **more):
    """The exit status, the first line, and the object, which must agree."""
    text, program = shop.roundsman("--status", **more), shop.roundsman("--status", "--json", **more)
    assert text.err == program.err == ""
    whole = json.loads(program.out)
    assert text.status == program.status == whole["status"]
    assert not whole["jobs"] or whole["status"] == max(job["status"] for job in whole["jobs"])
    first, *rest = text.out.splitlines()
    assert whole["summary"].split(",")[0] == first.split(",")[0]
    assert first.startswith("roundsman " + ["OK: ", "WARNING: ", "CRITICAL: "][text.status])
    assert not rest or rest[0] == ""
    return text.status, first, {job["job"]: job for job in whole["jobs"]}, "\n".join(rest[1:])


def problems(shop, job, **more):
    code, first, jobs, _ = status(shop, **more)
    for problem in jobs[job]["problems"]:
        assert f"{job}: {problem.split(', ')[0]}" in first  # how long ago it was is another second's answer
    return code, " / ".join(jobs[job]["problems"])


def test_all_is_well(ledger):
    number = run(ledger, "restock", "done", "2026-01-01T00:00:00Z", done=100, skipped=3)
    code, first, jobs, table = status(ledger)
    assert (code, first) == (0, "roundsman OK: 3 jobs, 0 running, 0 disabled")
    assert list(jobs) == ["daily-points", "restock", "cancel-unpaid"]
    restock = jobs["restock"]
    assert (restock["owed_since"], restock["problems"], restock["leftovers"], restock["seen"]) == (None, [], 0, True)
    assert restock["next_due"].endswith("-01-01T00:00:00Z")
    (last,) = restock["runs"]
    assert (last["id"], last["due"], last["state"]) == (number, "2026-01-01T00:00:00Z", "done")
    assert (last["rows_done"], last["rows_skipped"], last["took_seconds"], last["error"]) == (100, 3, 65, None)
    assert jobs["daily-points"]["runs"] == []
    (line,) = [line for line in table.splitlines() if line.startswith("restock")]
    assert line.split()[:4] == ["restock", str(number), "schedule", "done"]
    assert "1m05s" in line and restock["next_due"] in line


def test_a_job_that_no_daemon_has_seen(shop):
    shop.configure()
    assert problems(shop, "restock") == (1, "not seen by a daemon yet")


def test_failed_is_critical_until_it_is_finished(ledger):
    number = run(ledger, "restock", "failed", "2026-01-01T00:00:00Z", error='no "stock"\n\x1b[31mat all', finished=False)
    code, what = problems(ledger, "restock")
    assert (code, what) == (2, f'run {number} failed: no "stock"  [31mat all')
    ledger.sql("UPDATE roundsman.run SET state = 'abandoned'")
    assert problems(ledger, "restock") == (0, "")


def test_an_unfinished_manual_run_stays_in_sight_behind_later_runs(ledger):
    number = run(ledger, "restock", "failed", error="no such table", finished=False)
    run(ledger, "restock", "done", "2026-01-01T00:00:00Z")
    code, _, jobs, table = status(ledger)
    assert code == 2
    assert [each["state"] for each in jobs["restock"]["runs"]] == ["done", "failed"]
    (what,) = jobs["restock"]["problems"]
    assert what.startswith(f"manual run {number} failed: no such table; ") and "--run-once" in what
    assert len(table.splitlines()) == 1 + 4


def test_interrupted_is_a_warning(ledger):
    number = run(ledger, "restock", "interrupted", "2026-01-01T00:00:00Z", finished=False)
    assert problems(ledger, "restock") == (1, f"run {number} was interrupted; the next run resumes it")


@pytest.mark.parametrize("job, trigger, words", [
    ("off", "schedule", "run {} was interrupted; it is resumed once the job is enabled; --abandon gives it up"),
    ("off", "manual", "manual run {} was interrupted; once the job is enabled, --run-once finishes it; --abandon gives it up"),
    ("gone", "schedule", "no longer configured, so that nothing finishes its runs: --abandon gives them up /"
     " run {} was interrupted"),
])
def test_no_next_run_resumes_what_is_disabled_or_no_longer_configured(shop, job, trigger, words):
    shop.configure(jobs=[{"name": "off", "kind": "restock", "schedule": YEARLY, "add": 1, "enabled": False}])
    see(shop, "off", enabled=False)
    see(shop, "gone")
    number = run(shop, job, "interrupted", None if trigger == "manual" else "2026-01-01T00:00:00Z", finished=False)
    assert problems(shop, job) == (1, words.format(number))


def test_rows_left_over_are_a_warning_and_are_counted_over_all_runs(ledger):
    first = None
    for due, keys, words in (("2026-01-01T00:00:00Z", "ab", "2 rows left over by run {0}"),
                             ("2026-01-02T00:00:00Z", "c", "3 rows left over by 2 runs, the oldest of which is run {0}")):
        number = run(ledger, "restock", "partial", due, done=7)
        for key in keys:
            ledger.sql("INSERT INTO roundsman.leftover (run_id, key, lane, reason) VALUES (%s, %s, 0, 'locked')", number, key)
        first = first or number
        assert problems(ledger, "restock") == (1, words.format(first))
    _, _, jobs, _ = status(ledger)
    assert jobs["restock"]["leftovers"] == 3
    assert [each["leftovers"] for each in jobs["restock"]["runs"]] == [1]


def test_a_running_run_shows_its_progress_and_needs_a_process_that_holds_it(ledger):
    number = run(ledger, "restock", "running", "2026-01-01T00:00:00Z", finished=False)
    for lane, done in ((0, 40), (1, 2)):
        ledger.sql("INSERT INTO roundsman.lane (run_id, lane, range_to, rows_done) VALUES (%s, %s, '9', %s)",
                   number, lane, done)
    assert problems(ledger, "restock") == (
        1, f"run {number} is running, but no process holds it; the next run resumes it")
    other = ledger.value("SELECT id FROM roundsman.job WHERE name = 'daily-points'")
    job = ledger.value("SELECT id FROM roundsman.job WHERE name = 'restock'")
    with ledger.hold("SELECT pg_advisory_lock(%s, %s)", LOCK_CLASS, other):
        assert problems(ledger, "restock")[0] == 1
    with ledger.hold("SELECT pg_advisory_lock(%s, %s)", LOCK_CLASS, job):
        code, first, jobs, _ = status(ledger)
    assert (code, first) == (0, "roundsman OK: 3 jobs, 1 running, 0 disabled")
    (now,) = jobs["restock"]["runs"]
    assert (now["rows_done"], now["attended"], now["finished_at"]) == (42, True, None)
    assert now["took_seconds"] >= 65


@pytest.mark.parametrize("minutes, jitter, code, words", [
    (0, "0s", 0, ""),
    (5, "0s", 1, "late: was due at "),
    (5, "4m", 0, ""),
    (12, "0s", 2, "overdue: was due at "),
    (12, "4m", 1, "late: was due at "),
])
def test_what_is_owed_is_late_and_then_overdue(shop, minutes, jitter, code, words):
    due = shop.value("SELECT date_trunc('minute', now() - %s * interval '1 minute')", minutes).astimezone(timezone.utc)
    shop.configure(jobs=[{"name": "restock", "kind": "restock", "schedule": f"{due.minute} {due.hour} * * *", "add": 1,
                          "jitter": jitter}])
    see(shop, "restock", schedule=f"{due.minute} {due.hour} * * *", settled=f"{minutes + 10} min")
    found, what = problems(shop, "restock")
    assert found == code and what.startswith(words) and bool(what) == bool(words)
    _, _, jobs, _ = status(shop)
    assert jobs["restock"]["owed_since"] == due.strftime("%FT%TZ")
    assert jobs["restock"]["next_due"] == (due + timedelta(days=1)).strftime("%FT%TZ")


def test_books_that_are_settled_to_the_future_are_critical(ledger):
    ledger.sql("UPDATE roundsman.job SET settled_through = now() + interval '1 day' WHERE name = 'restock'")
    code, what = problems(ledger, "restock")
    assert code == 2 and what.startswith("settled through ") and "in the future" in what


def test_clocks_apart_are_critical_as_nothing_is_run(ledger):
    for offset, where in (("+10m", "behind"), ("-10m", "ahead of")):
        result = ledger.roundsman("--status", faketime=offset)
        assert result.status == 2 and re.match(rf"roundsman CRITICAL: the server's clock is (9m59s|10m00s) {where} this host's,"
                                               " and beyond 30s", result.out), result
        assert json.loads(ledger.roundsman("--status", "--json", faketime=offset).out)["status"] == 2
    ledger.configure(max_clock_skew="15m")
    assert status(ledger, faketime="+10m")[0] == 0


def test_what_waits_behind_a_running_run_is_not_overdue(shop):
    shop.configure(jobs=[{"name": "restock", "kind": "restock", "schedule": "* * * * *", "add": 1}])
    job = see(shop, "restock", schedule="* * * * *", settled="1 h")
    run(shop, "restock", "running", "2026-01-01T00:00:00Z", finished=False)
    with shop.hold("SELECT pg_advisory_lock(%s, %s)", LOCK_CLASS, job):
        code, what = problems(shop, "restock")
    assert code == 1 and what.startswith("late: ")
    assert problems(shop, "restock")[0] == 2


def test_a_disabled_job_is_never_late(shop):
    shop.configure(jobs=[{"name": "restock", "kind": "restock", "schedule": "* * * * *", "add": 1, "enabled": False}])
    see(shop, "restock", schedule="* * * * *", enabled=False, settled="1 h")
    code, first, jobs, table = status(shop)
    assert (code, first) == (0, "roundsman OK: 1 job, 0 running, 1 disabled")
    assert jobs["restock"]["next_due"] is None
    assert table.splitlines()[1].endswith("disabled")


def test_a_job_in_the_zone_of_the_host_is_known_by_the_name_of_the_zone(shop):
    shop.configure(defaults={"timezone": ""}, jobs=[{"name": "restock", "kind": "restock", "schedule": YEARLY, "add": 1}])
    assert shop.roundsman("--run-once", "restock").status == 0
    assert problems(shop, "restock") == (0, "")


def test_an_edited_job_waits_for_a_reload(shop):
    shop.configure(jobs=[{"name": "restock", "kind": "restock", "schedule": "* * * * *", "add": 1}])
    see(shop, "restock", schedule=YEARLY, settled="1 h")
    assert problems(shop, "restock") == (1, "edited in the file, but no daemon has been reloaded with it")


def test_a_job_that_is_no_longer_configured_matters_while_it_is_unfinished(ledger):
    see(ledger, "old", settled="30 d")
    run(ledger, "old", "done")
    assert status(ledger)[0] == 0
    run(ledger, "old", "interrupted", finished=False)
    code, _, jobs, _ = status(ledger)
    assert code == 1 and jobs["old"]["configured"] is False
    assert jobs["old"]["problems"][0].startswith("no longer configured")


def test_no_ledger_and_no_server_are_critical(bare_shop):
    bare_shop.configure()
    code, first, jobs, _ = status(bare_shop)
    assert code == 2 and jobs == {} and "roundsman --install" in first
    bare_shop.configure(database={"conninfo": "host=/nowhere dbname=shop"})
    code, first, jobs, _ = status(bare_shop)
    assert code == 2 and jobs == {} and "/nowhere" in first
    result = bare_shop.roundsman("--history")
    assert result.status == 1 and result.out == "" and "/nowhere" in result.err


def test_usage_and_file_are_unknown(shop):
    """The monitoring system shows the first line of standard output, and nothing else."""
    wrong = shop.configure(text="jobs = 1;\nfoo = 2;\n", name="wrong.conf")
    conninfo = shop.configure(database={"conninfo": "hast=x"}, name="conninfo.conf")
    fine = shop.configure()
    for arguments, config, said in ((["--nonsense"], fine, "wrong usage, see standard error"), ([], wrong, f"{wrong}:1: "),
                                    ([], conninfo, "hast"), ([], "/nowhere.conf", "/nowhere.conf")):
        text = shop.roundsman("--status", *arguments, config=config)
        program = shop.roundsman("--status", "--json", *arguments, config=config)
        assert text.status == program.status == 3 and text.err == program.err != ""
        assert text.out.startswith("roundsman UNKNOWN: ") and said in text.out and text.out.count("\n") == 1, text
        assert json.loads(program.out) == {"status": 3, "summary": text.out.rstrip(), "jobs": []}


def test_history(ledger):
    for arguments, said in (((), "no runs yet"), (("restock",), "no runs of restock yet")):
        assert ledger.roundsman("--history", *arguments) == (0, said + "\n", "")
    assert json.loads(ledger.roundsman("--history", "--json").out) == []
    numbers = [run(ledger, job, state, due, error, done, skipped) for job, state, due, error, done, skipped in (
        ("restock", "done", "2026-01-01T00:00:00Z", None, 2000000, 0),
        ("daily-points", "failed", "2026-01-01T00:00:00Z", 'relation "x" does not exist\n' + 300 * "é", 1, 22),
        ("restock", "abandoned", None, "given up", 333, 4444),
    )]
    everything = json.loads(ledger.roundsman("--history", "--json").out)
    assert [each["id"] for each in everything] == numbers[::-1]
    assert everything[0] == {
        "id": numbers[2], "job": "restock", "trigger": "manual", "due": None, "state": "abandoned", "attempt": 1,
        "started_at": everything[0]["started_at"], "finished_at": everything[0]["finished_at"], "took_seconds": 65,
        "rows_done": 333, "rows_skipped": 4444, "leftovers": 0, "attended": None, "error": "given up"}
    assert [each["id"] for each in json.loads(ledger.roundsman("--history", "restock", "--json", "-n", "1").out)] == numbers[2:]

    lines = ledger.roundsman("--history").out.splitlines()
    assert [line.split()[0] for line in lines] == ["RUN"] + [str(number) for number in numbers[::-1]]
    assert [line[line.index("2026-01-01"):][:20] for line in lines[2:]] == ["2026-01-01T00:00:00Z"] * 2
    done = lines[0].index("DONE") + len("DONE")
    assert [line[:done].split()[-1] for line in lines] == ["DONE", "333", "1", "2000000"]  # flush right
    assert lines[2].endswith(300 * "é")  # nothing is cut where a program may read
    assert not any(line.endswith(" ") for line in lines)


def test_history_of_a_job_that_is_no_longer_configured(ledger):
    see(ledger, "old")
    number = run(ledger, "old", "interrupted", finished=False)
    assert [each["id"] for each in json.loads(ledger.roundsman("--history", "old", "--json").out)] == [number]
    result = ledger.roundsman("--history", "older")
    assert (result.status, result.out) == (2, "") and 'nor the ledger has a job "older"\n' in result.err
    ledger.configure(database={"conninfo": "host=/nowhere"})
    result = ledger.roundsman("--history", "old")
    assert (result.status, result.out) == (1, "") and "/nowhere" in result.err


def test_history_is_cut_to_the_terminal(ledger):
    pexpect = pytest.importorskip("pexpect")
    run(ledger, "restock", "failed", error=300 * "é", finished=False)
    command = ledger.command("--history")
    terminal = pexpect.spawn(command[0], command[1:], env=ledger.environment(), dimensions=(24, 160), encoding="utf-8")
    terminal.expect(pexpect.EOF)
    line = terminal.before.splitlines()[1]
    assert len(line) == 160 and line.endswith("éé…")


def test_next_in_a_gap_and_an_overlap(shop):
    shop.configure(database={"conninfo": "host=/nowhere"}, jobs=[
        {"name": "berlin", "kind": "restock", "schedule": "30 2 * * *", "timezone": "Europe/Berlin", "add": 1},
        {"name": "seoul", "kind": "restock", "schedule": "0 0 * * *", "timezone": "Asia/Seoul", "add": 1, "jitter": "30s"},
        {"name": "off", "kind": "restock", "schedule": "@daily", "add": 1, "enabled": False}])

    def following(*arguments):
        result = shop.roundsman("--next", *arguments)
        assert (result.status, result.err) == (0, "")
        return result.out.splitlines()

    assert following("berlin", "-n", "3", "--from", "2026-03-28T01:00:00Z") == [
        "2026-03-28T01:30:00Z  Sat 2026-03-28 02:30:00 CET +01:00   berlin",
        "2026-03-29T01:00:00Z  Sun 2026-03-29 03:00:00 CEST +02:00  berlin  (the clock skips this time: runs at the transition)",
        "2026-03-30T00:30:00Z  Mon 2026-03-30 02:30:00 CEST +02:00  berlin"]
    assert following("berlin", "-n", "2", "--from", "2026-10-24T12:00:00+09:00") == [
        "2026-10-25T00:30:00Z  Sun 2026-10-25 02:30:00 CEST +02:00  berlin  (this time happens twice: runs on the first pass)",
        "2026-10-26T01:30:00Z  Mon 2026-10-26 02:30:00 CET +01:00   berlin"]
    # All that are enabled, in the order of time; the one that --from names itself is over.
    assert [line.split()[0] + " " + line.split()[6] for line in following("-n", "3", "--from", "2026-05-31T15:00:00Z")] == [
        "2026-06-01T00:30:00Z berlin", "2026-06-01T15:00:00Z seoul", "2026-06-02T00:30:00Z berlin"]
    line, = following("seoul", "-n", "1", "--from", "2026-06-01T00:00:00Z")
    assert re.fullmatch(r"2026-06-01T15:00:00Z  Tue 2026-06-02 00:00:00 KST \+09:00  seoul"
                        r"  \(jitter: on this host at 2026-06-01T15:00:[0-2][0-9]Z\)", line), line
    assert [line.split("  ")[-1] for line in following("off")] == 5 * ["(disabled)"]
    assert len(following()) == 5
    assert following("seoul", "--from", "9999-12-31T00:00:00Z") == [
        "no occurrence of seoul after 9999-12-31T00:00:00Z: schedules end before the year 9999"]


def test_a_stuck_server_does_not_hold_monitoring_up_for_long(shop):
    """--install holds the ledger locked meanwhile, at worst."""
    shop.configure()
    with shop.hold("LOCK TABLE roundsman.run IN ACCESS EXCLUSIVE MODE"):
        command = subprocess.Popen(shop.command("--status"), env=shop.environment(), stdout=subprocess.PIPE, text=True)
        wait_until(lambda: shop.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                                      " AND datname = current_database()") == 1, what="it waits for the lock")
        out, _ = command.communicate(timeout=30)
    assert command.returncode == 2 and "lock timeout" in out
