# SPDX-License-Identifier: PostgreSQL
"""--check prices each bulk job; its advice, executed as it stands, makes it vanish, and fails no check."""

import re

import pytest

from harness import JOBS, wait_until

POINTS, RESTOCK, CANCEL = JOBS


def check(shop, status=0, **configuration):
    if configuration:
        shop.configure(**configuration)
    result = shop.roundsman("--check")
    assert result.status == status, result
    return result.out


def advice(out):
    """Each with its remedy, or None."""
    return [(text, remedy or None)
            for text, remedy in re.findall(r"^advice: (.*)\n(?:    remedy: (.*)\n)?", out, re.MULTILINE)]


def settled(shop, *tables):
    """What the catalog knows of the tables is up to date, and their pages are as the fillfactor wants them."""
    for table in tables or ("shop.users", "shop.menu_items"):
        shop.sql(f"VACUUM (FULL, ANALYZE) {table}")


def prices(out, table):
    """Of the table: bytes of a row, the expected share of HOT updates, bytes of WAL a row."""
    match = re.search(rf"^price: {table}: about (\d+) rows of (\d+) bytes, .*\nprice: estimates: (\d+) % of updates"
                      r" HOT, (\d+) bytes of WAL a row", out, re.MULTILINE)
    assert match, out
    return tuple(map(int, match.groups()))


def test_the_reference_schema_follows_its_own_advice(shop):
    for _ in range(2):  # before the tables were ever analyzed, and after
        out = check(shop)
        assert advice(out) == [] and out.endswith("All is well.\n"), out
        settled(shop)
    rows, width, hot, wal = prices(out, "shop.users")
    assert rows == 1000 and 60 <= width <= 110 and hot >= 90 and 80 <= wal <= 110, out
    assert len(re.findall("^price: .*; what changes is in no index", out, re.MULTILINE)) == 2, out
    assert out.index("job daily-points") < out.index("price: shop.users") < out.index("job restock") < out.index(
        "price: shop.menu_items") < out.index("job cancel-unpaid"), out


def test_the_right_to_read_marks(shop):
    shop.sql("REVOKE SELECT (xmax) ON shop.users FROM roundsman")
    [(text, remedy)] = advice(check(shop))
    assert "table shop.users: the role may not read xmax" in text
    assert remedy == "GRANT SELECT (xmax) ON shop.users TO roundsman;"
    shop.sql(remedy)
    assert advice(check(shop)) == []


@pytest.mark.parametrize("definition", [
    "(last_modified_at)", "(name, last_modified_at DESC)", "(name) INCLUDE (last_modified_at)",
    "(name) WHERE last_modified_at > '2020-01-01Z'", "(shop.day(last_modified_at))"])
def test_an_index_on_touched(shop, definition):
    if "shop.day" in definition:
        shop.sql("CREATE FUNCTION shop.day(timestamptz) RETURNS date IMMUTABLE LANGUAGE sql AS"
                 " $$ SELECT ($1 AT TIME ZONE 'UTC')::date $$")
    settled(shop)
    shop.sql(f'CREATE INDEX "by ""age" ON shop.users {definition}; CREATE INDEX bystander ON shop.users (name)')
    out = check(shop)
    assert 'indexes that a change touches: shop."by ""age"\n' in out and "bystander" not in out, out
    assert prices(out, "shop.users")[2] == 0 and prices(out, "shop.users")[3] > 200, out
    [(text, remedy)] = advice(out)
    assert 'index shop."by ""age" has last_modified_at' in text, text
    shop.sql(remedy)
    assert advice(check(shop)) == []


def test_an_index_on_the_points_is_named_and_not_to_be_dropped(shop):
    shop.sql("CREATE INDEX rich ON shop.users (points) WHERE points > 0")
    [(text, remedy)] = advice(check(shop))
    assert "index shop.rich has points" in text and remedy is None, text


def test_full_pages(shop):
    shop.populate(items=2000)
    shop.sql("ALTER TABLE shop.users RESET (fillfactor); ALTER TABLE shop.menu_items SET (fillfactor = 90)")
    settled(shop)
    out = check(shop)
    assert prices(out, "shop.users")[2] == 0 and prices(out, "shop.users")[3] > 200, out
    found = advice(out)
    assert [re.match("table (.*): fillfactor [0-9]+", text)[0] for text, _ in found] == [
        "table shop.users: fillfactor 100", "table shop.menu_items: fillfactor 90"]
    for _, remedy in found:
        shop.sql(remedy)
    out = check(shop)
    assert advice(out) == [] and prices(out, "shop.users")[2] < 40, out  # the pages that are there are still full
    settled(shop)
    out = check(shop)
    assert advice(out) == [] and prices(out, "shop.users")[2] >= 90, out


def test_a_table_of_few_pages_is_left_as_it_is(shop):
    shop.sql("ALTER TABLE shop.users RESET (fillfactor); ALTER TABLE shop.menu_items RESET (fillfactor)")
    for rows in (100, 1, 0):
        shop.populate(users=rows, items=rows, orders=0)
        assert advice(check(shop)) == []  # never counted
        settled(shop)
        assert advice(check(shop)) == []
    shop.populate(users=1000, items=1000)
    shop.sql("VACUUM FULL shop.users")  # counted as empty before
    assert [text.split(":")[0] for text, _ in advice(check(shop))] == ["table shop.users", "table shop.menu_items"]


def test_the_estimate_holds(shop):
    """Half-empty and full pages, against what a round did."""
    for fillfactor in (50, 100):
        shop.sql(f"ALTER TABLE shop.users SET (fillfactor = {fillfactor})")
        shop.populate(users=20000)
        settled(shop)
        out = check(shop, jobs=[POINTS])
        assert len(advice(out)) == (fillfactor == 100), out  # that all went well before it was rewritten does not count
        _, _, hot, wal = prices(out, "shop.users")
        with shop.connect() as connection:
            begin = connection.execute("SELECT pg_current_wal_insert_lsn()").fetchone()[0]
            shop.sql("SELECT pg_stat_reset()")
            assert shop.roundsman("--run-once", "daily-points").status == 0
            written = connection.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s) / 20000",
                                         [begin]).fetchone()[0]
        match = re.search(r"; so far (\d+) % of 20000 updates were HOT$", check(shop), re.MULTILINE)
        assert match and abs(int(match[1]) - hot) <= 8, (match, hot)
        assert abs(int(written) - wal) <= 0.2 * wal, (written, wal)


def test_a_partitioned_table(shop):
    shop.sql("CREATE TABLE shop.other (id bigint PRIMARY KEY, points bigint NOT NULL, last_modified_at timestamptz)"
             " PARTITION BY HASH (id);"
             "CREATE TABLE shop.other_0 PARTITION OF shop.other FOR VALUES WITH (modulus 2, remainder 0)"
             " WITH (fillfactor = 50);"
             "CREATE TABLE shop.other_1 PARTITION OF shop.other FOR VALUES WITH (modulus 2, remainder 1);"
             "INSERT INTO shop.other SELECT n, n, now() FROM generate_series(1, 5000) AS n;"
             "CREATE INDEX other_age ON shop.other (last_modified_at);"
             "GRANT SELECT, UPDATE ON shop.other TO roundsman")
    settled(shop, "shop.other")
    out = check(shop, jobs=[POINTS], tables={"users": {"table": "shop.other"}})
    assert "rows of 48 bytes, fillfactor 50 to 100; indexes that a change touches: shop.other_age\n" in out, out
    [(text, remedy)] = advice(out)
    shop.sql(remedy)
    out = check(shop)
    assert prices(out, "shop.other")[0] == 5000 and 40 < prices(out, "shop.other")[2] < 60, out
    [(text, remedy)] = advice(out)
    assert text.startswith("table shop.other_1: fillfactor 100"), text
    shop.sql(remedy)
    settled(shop, "shop.other")
    out = check(shop)
    assert advice(out) == [] and prices(out, "shop.other")[2] >= 90, out


def test_an_old_transaction_is_named(shop):
    connection = shop.connect(autocommit=False)
    connection.execute("SELECT pg_current_xact_id()")
    pid = connection.info.backend_pid
    out = check(shop, jobs=[CANCEL])
    assert re.search(rf"^price: the oldest snapshot is \d+ transactions?( and \S+)? old: process {pid} \(a session of role postgres\)$",
                     out, re.MULTILINE), out
    assert advice(out) == []
    shop.sql("DO $$ BEGIN FOR i IN 1..100001 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")
    [(text, remedy)] = advice(check(shop))
    assert text.startswith(f"process {pid} (") and remedy == f"SELECT pg_terminate_backend({pid});"
    shop.sql(remedy)
    wait_until(lambda: advice(check(shop)) == [], what="the end of the old transaction")
    connection.close()


def test_a_session_of_another_database_holds_nothing_back(shop):
    with shop.server.connect("postgres", autocommit=False) as connection:
        connection.execute("SELECT pg_current_xact_id()")
        assert f"process {connection.info.backend_pid} " not in check(shop)


def test_a_process_of_the_server_has_no_role(own_shop):
    """Autovacuum, which is held up while it analyzes a table."""
    own_shop.close()
    own_shop.server.restart("autovacuum=on", "autovacuum_naptime=1s")
    own_shop.sql("CREATE FUNCTION shop.held_up(integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN"
                 " IF EXISTS (SELECT FROM pg_stat_activity WHERE pid = pg_backend_pid() AND usename IS NULL) THEN"
                 " PERFORM pg_sleep(60); END IF; RETURN $1; END $$;"
                 "CREATE TABLE shop.much AS SELECT n FROM generate_series(1, 1000) AS n;"
                 "CREATE INDEX ON shop.much (shop.held_up(n))")
    wait_until(lambda: re.search(r"^price: the oldest snapshot is .* old: process \d+ \(one of the server's own\)$",
                                 check(own_shop, jobs=[CANCEL]), re.MULTILINE), what="autovacuum")
