# SPDX-License-Identifier: PostgreSQL
"""A clear error and nothing lost, always: every exit status, and every bad input that the interface names."""

import datetime
import os
import re
import signal
import subprocess
import threading

import pytest

from harness import YEARLY, wait_until

DAY = datetime.timedelta(days=1)
POINTS = {"name": "points", "kind": "points", "schedule": "0 0 * * *", "amount": 10, "catch_up": "all", "batch_max": 20, "lanes": 1}
SLOW = "PERFORM pg_sleep(0.001);"


def configure(shop, **settings):
    return shop.configure(jobs=[{**POINTS, **settings}])


def owe(shop):
    """One occurrence is owed: today's."""
    today = datetime.datetime.now(datetime.timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
    shop.sql("INSERT INTO roundsman.job (name, kind, schedule, timezone, first_seen, settled_through)"
             " VALUES ('points', 'points', '0 0 * * *', 'UTC', %s, %s)", today - 9 * DAY, today - DAY)
    return today


def nothing_lost(shop, today):
    """The occurrence is owed as before."""
    assert shop.sql("SELECT settled_through FROM roundsman.job") == [(today - DAY,)]
    assert shop.runs() == [] and shop.leftovers() == []


def settled(shop, today, expected):
    assert [(run["due"], run["state"]) for run in shop.runs()] == [(today, "done")]
    books = shop.books()
    assert books == expected, books.explain(expected)


def clear(text):
    """Lines for an operator at three in the morning: each is whole, none has a stack of prefixes or the server's own."""
    lines = text.splitlines()
    assert lines, "it said nothing"
    for line in lines:
        assert not re.search(r"ERROR:|FATAL:|\bLINE \d|HINT:|DETAIL:|^roundsman: roundsman:", line), line
        assert line == line.strip() and not line.endswith((".", ":")) and "  " not in line and "(null)" not in line, repr(line)
    return lines


def triggered(shop, body, when="true"):
    shop.sql(f"CREATE FUNCTION shop.before() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
             f" $$ BEGIN {body} RETURN NEW; END $$")
    shop.sql(f"CREATE TRIGGER before BEFORE UPDATE ON shop.users FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION shop.before()")


def gate(shop, user=500):
    """The run stays at this user until the gate is opened."""
    shop.sql("CREATE TABLE shop.closed AS SELECT 1 AS one")
    triggered(shop, "WHILE EXISTS (SELECT FROM shop.closed) LOOP PERFORM pg_sleep(0.005); END LOOP;", f"NEW.id = {user}")


def at_the_gate(shop):
    wait_until(lambda: shop.sql("SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
                                " AND application_name LIKE 'roundsman%' AND wait_event_type = 'Timeout'"), what="the gate")


# ---- Exit statuses ----

USAGE = {
    "unknown option": (["--run-onec", "points"], "unknown option --run-onec"),
    "unknown short option": (["-x"], "unknown option -x"),
    "unknown short option among others": (["-vxq"], "unknown option -x"),
    "an option without its argument": (["--run-once", "points", "--due"], "option --due needs an argument"),
    "unknown job": (["--run-once", "point"], 'has no job "point"; did you mean "points"?'),
    "unknown job of --next": (["--next", "point"], 'did you mean "points"?'),
    "unknown job of --history": (["--history", "point"], 'did you mean "points"?'),
    "no job": (["--run-once"], "--run-once needs the name of a job"),
    "no job to abandon": (["--abandon"], "--abandon needs the name of a job"),
    "two jobs": (["--run-once", "points", "points"], 'unexpected operand "points"'),
    "an operand for the daemon": (["points"], 'unexpected operand "points"'),
    "two commands": (["--check", "--next"], "--check and --next contradict each other"),
    "--only without a command": (["--only", "5"], "--only does not go with the daemon"),
    "--due with --check": (["--check", "--due", "2026-01-01T00:00:00Z"], "--due does not go with --check"),
    "--due and --only": (["--run-once", "points", "--due", "2026-01-01T00:00:00Z", "--only", "1"], "does not go with --only"),
    "--offline with --next": (["--next", "--offline"], "--offline does not go with --next"),
    "--json with --check": (["--check", "--json"], "--json does not go with --check"),
    "-n with a letter": (["--next", "-n", "five"], "-n five is no positive number"),
    "-n 0": (["--next", "-n", "0"], "-n 0 is no positive number"),
    "a bad time": (["--next", "--from", "noon"], "--from noon is no RFC 3339 time"),
    "a bad --due": (["--run-once", "points", "--due", "noon"], "--due noon is no RFC 3339 time"),
    "a bad -d": (["--install", "-d", "dbname=x password"], '-d cannot be used: missing "=" after "password"'),
    "a -d that libpq does not know": (["--install", "--dry-run", "-d", "passwrd=x"],
                                      '-d cannot be used: invalid connection option "passwrd"'),
    "a bad --set": (["--run-once", "points", "--set", "amuont=5"], "amuont"),
    "a bad value of --set": (["--run-once", "points", "--set", "amount=x"], "amount"),
    "an empty where": (["--run-once", "points", "--set", "where="], "--set where=: where must not be empty"),
    "a setting of the daemon's": (["--run-once", "points", "--set", "retry_delay=2s"],
                                  "retry_delay is no setting of a single run"),
}


@pytest.mark.parametrize("case", USAGE)
def test_usage(shop, case):
    arguments, message = USAGE[case]
    configure(shop)
    result = shop.roundsman(*arguments)
    assert result.status == 2 and result.out == "", result
    line, = clear(result.err)
    assert line.startswith("roundsman: ") and message in line, line


def test_usage_of_a_monitoring_plugin_is_unknown(shop):
    configure(shop)
    assert shop.roundsman("--status", "--frobnicate").status == 3
    assert shop.roundsman("--status", config="/nonexistent").status == 3


def test_done_leftovers_failure_and_interruption(shop):
    configure(shop, schedule=YEARLY)
    assert shop.roundsman("--run-once", "points").status == 0
    with shop.hold("SELECT FROM shop.users WHERE id = 3 FOR UPDATE"):
        result = shop.roundsman("--run-once", "points")
        assert result.status == 10
        clear(result.out)
    assert shop.roundsman("--run-once", "points").status == 0
    gate(shop)
    with shop.start("--run-once", "points") as process:
        at_the_gate(shop)
        # Another one does not wait for it, and says so at once.
        result = shop.roundsman("--run-once", "points")
        assert result.status == 75 and "another process is running this job" in clear(result.err)[0], result
        result = shop.roundsman("--abandon", "points")
        assert result.status == 75, result
        process.signal(signal.SIGTERM)
        shop.sql("DELETE FROM shop.closed")
        assert process.wait() == 11
        clear(process.log())
        assert "interrupted; finish it with --run-once, or give it up with --abandon" in process.log()
    assert shop.runs()[-1]["state"] == "interrupted"


def test_how_a_run_goes_can_be_set_for_one_that_is_owed(shop):
    """No extra run is made of it, as a setting of the kind or where would."""
    configure(shop)
    today = owe(shop)
    expected = shop.books().with_points(10)
    result = shop.roundsman("--run-once", "points", "--set", "lanes=3", "--set", "pace=full", "--set", "lock_timeout=50ms")
    assert result.status == 0, result
    settled(shop, today, expected)


# ---- The file ----

FILES = {
    "missing": (None, r"No such file"),
    "empty": ("", r"^FILE: this file is empty"),
    "a syntax error": ('database = { conninfo = "host=/x" ;\n', r"^FILE:\d+: syntax error"),
    "an unknown key": ('database = { conninfo = "host=/x"; };\njobs = ( { name = "a"; knid = "points"; } );\n',
                       r'^FILE:2: .*"?knid"?.*did you mean "?kind"?'),
    "a wrong type": ('database = { conninfo = 5; };\n', r"^FILE:1: .*conninfo"),
    "a wrong schedule": ('database = { conninfo = "host=/x"; };\njobs = ( { name = "a"; kind = "points"; amount = 1;\n'
                         'schedule = "61 * * * *"; } );\n', r"^FILE:3: .*minute"),
    "no text": ("\0\1\2\xff", r"^FILE"),
}


@pytest.mark.parametrize("case", FILES)
def test_files(shop, case, tmp_path):
    text, message = FILES[case]
    path = tmp_path / "bad.conf"
    if text is not None:
        path.write_text(text, encoding="latin-1")
    for arguments in ([], ["--run-once", "points"], ["--check", "--offline"]):
        result = shop.roundsman(*arguments, config=path)
        assert result.status == 6 and result.out == "", result
        assert any(re.search(message.replace("FILE", re.escape(str(path))), line) for line in clear(result.err)), result
        assert all(line.startswith(str(path)) for line in clear(result.err)), result


def test_all_errors_come_in_one_pass(shop, tmp_path):
    path = tmp_path / "bad.conf"
    path.write_text('database = { conninfo = "host=/x"; };\n'
                    'jobs = (\n'
                    '  { name = "a"; kind = "points"; schedule = "* * * *"; amount = 0; },\n'
                    '  { name = "a"; kind = "refill"; schedule = "@daily"; },\n'
                    '  { name = "b"; kind = "points"; schedule = "@daily"; amount = 10000000000; lanes = "two"; }\n'
                    ');\n')
    result = shop.roundsman("--check", "--offline", config=path)
    assert result.status == 6
    assert {line.split(":")[1] for line in clear(result.err)} >= {"3", "4", "5"}
    assert len(clear(result.err)) >= 5


def test_a_directory_and_an_unreadable_file(shop, tmp_path):
    result = shop.roundsman(config=tmp_path)
    assert result.status == 6 and clear(result.err) == [f"{tmp_path}: cannot read this file: Is a directory"]
    path = configure(shop)
    path.chmod(0)
    # Root reads everything, unless it is without these capabilities.
    without = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    done = subprocess.run(without + shop.command("--check", "--offline"), env=shop.environment(), capture_output=True, text=True,
                          check=False)
    assert done.returncode == 6 and clear(done.stderr) == [f"{path}: cannot read this file: Permission denied"], done


@pytest.mark.parametrize("mode, status", [(0o644, 6), (0o640, 0), (0o604, 6), (0o600, 0)])
def test_a_password_that_others_can_read(shop, mode, status):
    path = shop.configure(jobs=[{**POINTS, "schedule": YEARLY}], database={"conninfo": shop.conninfo() + " password=secret"})
    path.chmod(mode)
    for arguments in (["--check", "--offline"], ["--run-once", "points"]):
        result = shop.roundsman(*arguments)
        assert result.status == status, result
        assert "secret" not in result.out + result.err
        if status == 6:
            line, = clear(result.err)
            assert "password" in line and "chmod" in line


def test_a_reload_with_a_broken_file_keeps_the_old_one(shop):
    path = configure(shop, schedule="* * * * * *")
    good = path.read_text()
    with shop.start() as daemon:
        wait_until(lambda: len(shop.runs()) >= 1, what="a round")
        path.write_text(good.replace("amount", "amuont"))
        # ExecReload= checks first, and fails.
        result = shop.roundsman("--check", "--offline")
        assert result.status == 6 and re.search(r':\d+: .*amuont.*did you mean "?amount', result.err), result
        daemon.signal(signal.SIGHUP)
        daemon.wait_for(r"error: \S+\.conf:\d+: .*amuont")
        daemon.wait_for("the configuration was not reloaded: the previous one stays in use")
        runs = len(shop.runs())
        wait_until(lambda: len(shop.runs()) >= runs + 1, what="rounds by the old file")
        path.write_text(good.replace('conninfo = "', 'conninfo = "passwrd=foo '))
        daemon.signal(signal.SIGHUP)
        daemon.wait_for(r"error: \S+\.conf:\d+: .*passwrd")
        path.unlink()
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("No such file")
        runs = len(shop.runs())
        wait_until(lambda: len(shop.runs()) >= runs + 1, what="rounds by the old file")
        path.write_text(good.replace("amount = 10", "amount = 7"))
        assert shop.roundsman("--check", "--offline").status == 0
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("reloaded .*: 1 jobs?")
        wait_until(lambda: '"amount": 7' in str(shop.runs()[-1]["params"]).replace("'", '"') and shop.runs()[-1]["state"] == "done")
        assert daemon.stop() == 0
    amounts = [re.search(r'"amount": (\d+)', str(run["params"]).replace("'", '"')).group(1) for run in shop.runs()]
    assert set(amounts) == {"10", "7"} and amounts == sorted(amounts)


# ---- What a run needs is not there ----

MISSING = {
    "table": ("ALTER TABLE shop.users RENAME TO people", "ALTER TABLE shop.people RENAME TO users",
              "table shop.users: there is no such table; remedy: create it, or name the right table under `tables`"),
    "column": ("ALTER TABLE shop.users RENAME points TO credit", "ALTER TABLE shop.users RENAME credit TO points",
               "table shop.users: there is no column points; remedy: "),
    "schema": ("ALTER SCHEMA shop RENAME TO store", "ALTER SCHEMA store RENAME TO shop", "there is no schema shop in this database"),
    "grant": ("REVOKE UPDATE (points) ON shop.users FROM roundsman", "GRANT UPDATE (points) ON shop.users TO roundsman",
              "remedy: GRANT UPDATE (points) ON shop.users TO roundsman;"),
    "grant on the schema": ("REVOKE USAGE ON SCHEMA shop FROM roundsman", "GRANT USAGE ON SCHEMA shop TO roundsman",
                            "remedy: GRANT USAGE ON SCHEMA shop TO roundsman;"),
    "index": ("ALTER TABLE shop.orders DROP CONSTRAINT orders_user_id_fkey; ALTER TABLE shop.users DROP CONSTRAINT users_pkey",
              "ALTER TABLE shop.users ADD PRIMARY KEY (id)", "remedy: CREATE UNIQUE INDEX CONCURRENTLY"),
    "ledger": ("ALTER SCHEMA roundsman RENAME TO elsewhere", "ALTER SCHEMA elsewhere RENAME TO roundsman",
               "there is no ledger in schema roundsman: create it with roundsman --install"),
    "ledger's version": ("UPDATE roundsman.migration SET version = version + 100", "UPDATE roundsman.migration SET version = version - 100",
                         "upgrade roundsman on this host"),
    "grant on the ledger": ("REVOKE ALL ON ALL TABLES IN SCHEMA roundsman FROM roundsman",
                            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA roundsman TO roundsman", "permission denied"),
}


@pytest.mark.parametrize("case", MISSING)
def test_missing_at_run_time(shop, case):
    spoil, mend, message = MISSING[case]
    configure(shop)
    today = owe(shop)
    expected = shop.books().with_points(10)
    shop.sql(spoil)
    result = shop.roundsman("--run-once", "points")
    assert result.status == 1, result
    lines = clear(result.err)
    assert len(lines) <= 2 and message in lines[-1], result
    shop.sql(mend)
    nothing_lost(shop, today)
    assert shop.roundsman("--run-once", "points").status == 0
    settled(shop, today, expected)


def test_the_daemon_tries_again_until_it_is_mended(shop):
    configure(shop, retry_delay="1s")
    today = owe(shop)
    expected = shop.books().with_points(10)
    shop.sql("ALTER TABLE shop.users RENAME TO people")
    with shop.start() as daemon:
        daemon.wait_for("error: points.*table shop.users: there is no such table")
        daemon.wait_for(r"warning: points: the child exited with status 1: .*; next attempt in 1s")
        shop.sql("ALTER TABLE shop.people RENAME TO users")
        wait_until(lambda: shop.runs() and shop.runs()[0]["state"] == "done")
        assert daemon.stop() == 0
        clear(daemon.log())
    settled(shop, today, expected)


def test_a_table_that_goes_in_the_middle_of_a_run(shop):
    configure(shop)
    today = owe(shop)
    gate(shop)
    expected = shop.books().with_points(10)
    with shop.start("--run-once", "points") as process:
        at_the_gate(shop)
        # Gets in between the batch at the gate and the next one: its lock is the first in the queue.
        with shop.connect() as other:
            thread = threading.Thread(target=lambda: other.execute("ALTER TABLE shop.users RENAME TO people"))
            thread.start()
            wait_until(lambda: shop.sql("SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'shop.users'::regclass"))
            shop.sql("DELETE FROM shop.closed")
            thread.join(20)
        assert process.wait() in (0, 1)
        clear(process.log())
    assert shop.leftovers() == []
    shop.sql("ALTER TABLE shop.people RENAME TO users")
    assert shop.roundsman("--run-once", "points").status == 0
    settled(shop, today, expected)


# ---- The server ----

def test_a_standby(own_shop):
    shop = own_shop
    configure(shop)
    owe(shop)
    standby = shop.server.standby()
    try:
        conninfo = standby.conninfo(shop.name, "roundsman")
        path = shop.configure(jobs=[POINTS], database={"conninfo": conninfo})
        for arguments in (["--run-once", "points"], ["--check"]):
            result = shop.roundsman(*arguments, config=path)
            assert result.status == 1, result
            assert "standby" in result.err + result.out and "target_session_attrs" in result.err + result.out, result
        with shop.start(config=path) as daemon:
            daemon.wait_for("error: points: the server is a standby, and nothing can be changed there: let database.conninfo name")
            assert daemon.stop() == 0
        # Named beside the primary it is passed over.
        both = re.sub(r"host=\S+ port=\S+", f"host={standby.socket},{shop.server.socket} port=5432,5432", conninfo)
        path = shop.configure(jobs=[POINTS], database={"conninfo": both})
        assert shop.roundsman("--run-once", "points", config=path).status == 0
    finally:
        standby.remove()


def test_a_dead_server(shop, tmp_path):
    path = shop.configure(jobs=[POINTS], database={"conninfo": f"host={tmp_path} dbname=shop"})
    result = shop.roundsman("--run-once", "points", config=path)
    assert result.status == 1
    line, = clear(result.err)
    assert "points: no connection to the database: " in line and str(tmp_path) in line
    with shop.start(config=path) as daemon:
        daemon.wait_for("(?s)no connection to the database.*next attempt in")
        assert daemon.stop() == 0
        clear(daemon.log())
    path = shop.configure(jobs=[POINTS], database={"conninfo": shop.server.conninfo("nowhere", "roundsman")})
    result = shop.roundsman("--run-once", "points", config=path)
    assert result.status == 1 and 'database "nowhere" does not exist' in clear(result.err)[0], result
    path = shop.configure(jobs=[POINTS], database={"conninfo": shop.server.conninfo(shop.name, "nobody")})
    result = shop.roundsman("--run-once", "points", config=path)
    assert result.status == 1 and 'role "nobody" does not exist' in clear(result.err)[0], result


def test_a_server_that_goes_away_in_the_middle_of_a_run(own_shop):
    """It is stopped, and later it crashes; the daemon goes on when it is back, where the run stood."""
    shop = own_shop
    configure(shop, retry_delay="1s")
    today = owe(shop)
    expected = shop.books().with_points(10)
    shop.sql("CREATE TABLE shop.closed AS SELECT unnest(ARRAY[300, 700]) AS id")
    triggered(shop, "WHILE EXISTS (SELECT FROM shop.closed WHERE id = NEW.id) LOOP PERFORM pg_sleep(0.005); END LOOP;",
              "NEW.id IN (300, 700)")
    with shop.start() as daemon:
        for user, go in ((300, shop.server.stop), (700, shop.server.crash)):
            at_the_gate(shop)
            shop.close()
            log = len(daemon.log())
            go()
            wait_until(lambda: re.search("(?s)error: points run 1 .*: the connection to the server was lost: .*"
                                         "warning: points: the child exited with status 1.*next attempt in", daemon.log()[log:]))
            shop.server.start()
            shop.sql("DELETE FROM shop.closed WHERE id = %s", user)
        wait_until(lambda: shop.runs()[0]["state"] == "done", what="the run to be finished")
        assert daemon.stop() == 0
        clear(daemon.log())
    settled(shop, today, expected)


def test_a_session_that_is_terminated(shop):
    configure(shop)
    today = owe(shop)
    expected = shop.books().with_points(10)
    gate(shop)
    with shop.start("--run-once", "points") as process:
        at_the_gate(shop)
        shop.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                 " AND application_name LIKE 'roundsman%' AND wait_event_type = 'Timeout'")
        assert process.wait() == 1
        assert "terminating connection due to administrator command" in clear(process.log())[-1]
    assert shop.runs()[0]["state"] == "failed"
    shop.sql("DELETE FROM shop.closed")
    assert shop.roundsman("--run-once", "points").status == 0
    settled(shop, today, expected)


# ---- Signals ----

def test_a_signal_at_any_moment(shop):
    """One run, stopped again and again at its stages and after so many batches; each attempt goes on where the last one came."""
    configure(shop)
    today = owe(shop)
    expected = shop.books().with_points(10)
    triggered(shop, SLOW)
    done = "SELECT coalesce(sum(rows_done), 0) FROM roundsman.lane"
    session = ("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'roundsman%'")
    kinds = [signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
    moments = [lambda: True, lambda: shop.value(session) >= 1, lambda: shop.runs(), lambda: shop.value(session) >= 2]
    moments += [lambda rows=rows: shop.value(done) >= rows for rows in range(20, 980, 160)]  # ten of them
    statuses = []
    for number, moment in enumerate(moments):
        with shop.start("--run-once", "points") as process:
            wait_until(lambda: moment() or process.popen.poll() is not None)
            process.signal(kinds[number % len(kinds)])
            statuses.append(process.wait())
        rows = shop.value("SELECT count(*) FROM shop.users WHERE last_modified_at > now() - interval '1 hour'")
        assert rows == shop.value(done), "the ledger says what was done"
    assert {11, -9} <= set(statuses) <= {11, -9, -15, -2}, statuses
    result = shop.roundsman("--run-once", "points")
    assert result.status == 0 and "finishing run 1" in result.err, result
    settled(shop, today, expected)


def test_a_daemon_stopped_and_started_again(shop):
    configure(shop)
    today = owe(shop)
    expected = shop.books().with_points(10)
    triggered(shop, SLOW)
    for rows in (20, 300, 600):
        with shop.start() as daemon:
            wait_until(lambda: shop.value("SELECT coalesce(sum(rows_done), 0) FROM roundsman.lane") >= rows)
            daemon.signal(signal.SIGTERM)
            assert daemon.wait() == 0
        assert shop.runs()[0]["state"] == "interrupted"
    with shop.start() as daemon:
        wait_until(lambda: shop.runs()[0]["state"] == "done")
        assert daemon.stop() == 0
    settled(shop, today, expected)


# ---- A clock that jumps ----

def test_a_clock_that_jumps(shop, tmp_path):
    """Forth by a day under a daemon that runs, and back again: meanwhile nothing is settled, afterwards all goes on."""
    configure(shop, schedule="* * * * * *", retry_delay="1s")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    with shop.start(faketime=None, env={**{key: value for key, value in shop.environment(faketime="+0").items()
                                           if key in ("LD_PRELOAD", "FAKETIME_DONT_FAKE_MONOTONIC")},
                                        "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}) as daemon:
        wait_until(lambda: len([run for run in shop.runs() if run["state"] == "done"]) >= 1, what="a round")
        clock.write_text("+1d")
        daemon.wait_for("error: points: the clocks disagree by 8[67]")
        assert shop.value("SELECT coalesce(max(due) <= now(), true) FROM roundsman.run")
        clear(daemon.log())
        # libfaketime sets no clock, so timers do not hear of the way back, as they would of a clock that is set.
        clock.write_text("+0")
        assert daemon.stop() == 0
    runs = len(shop.runs())
    with shop.start() as daemon:
        wait_until(lambda: len([run for run in shop.runs() if run["state"] == "done"]) > runs, what="rounds go on")
        assert daemon.stop() == 0
    assert shop.value("SELECT settled_through <= now() FROM roundsman.job")
    assert shop.value("SELECT count(*) = count(DISTINCT due) AND bool_and(due <= started_at) FROM roundsman.run")


# ---- Standard output ----

@pytest.mark.parametrize("where", [">/dev/full", ">&-", "| true", ">&- 2>&- <&-"])
def test_a_standard_output_that_takes_nothing(shop, where):
    """The round is made once all the same, and its outcome is told by the next command."""
    configure(shop, schedule=YEARLY)
    expected = shop.books().with_points(10)
    command = shop.command("--run-once", "points")
    for attempt in (1, 2):
        done = subprocess.run(["bash", "-c", f'"$@" {where}; exit "${{PIPESTATUS[0]}}"', "bash", *command],
                              env=shop.environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        books = shop.books()
        assert books == expected, (attempt, books.explain(expected), done.stderr)
        assert done.returncode in (1, 141), done
        if "2>&-" not in where and done.returncode == 1:
            assert "standard output" in done.stderr
    result = shop.roundsman("--run-once", "points")
    assert result.status == 0 and "done: 1000 rows changed" in result.out, result
    assert shop.books() == expected
    assert len(shop.runs()) == 1
    for arguments in (["--next"], ["--status"], ["--history"], ["--check"], ["--version"], ["--help"]):
        done = subprocess.run(["bash", "-c", '"$@" >/dev/full', "bash", *shop.command(*arguments)], env=shop.environment(),
                              stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode != 0 and "standard output" in done.stderr, (arguments, done)


def test_a_conninfo_that_libpq_does_not_know(bare_shop):
    """Is an error of the file like any other: at its line, beside all others, without a connection."""
    path = bare_shop.configure(text='database = {\n  conninfo = "dbnam=shop";\n};\njobs = ( );\n')
    for arguments in (["--check", "--offline"], ["--next"], []):
        done = bare_shop.roundsman(*arguments)
        assert (done.status, done.out) == (6, "")
        assert done.err == (f'{path}:2: conninfo cannot be used: invalid connection option "dbnam"\n'
                            f"{path}:4: jobs is empty: there is nothing to do\n")
