# SPDX-License-Identifier: PostgreSQL
"""--install: one transaction, to be repeated at will, by the program or as text in psql."""

import re
import threading

import psycopg
import pytest

# All that a ledger is made of, apart from its contents.
ANATOMY = """
SELECT 'column', c.relname, attname, format_type(atttypid, atttypmod), attnotnull, attidentity::text,
       pg_get_expr(adbin, adrelid), col_description(c.oid, attnum)
  FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid LEFT JOIN pg_attrdef ON adrelid = c.oid AND adnum = attnum
 WHERE relnamespace = 'roundsman'::regnamespace AND attnum > 0
UNION ALL SELECT 'relation', relname, relkind::text, reloptions::text, false, NULL, relacl::text, obj_description(oid)
  FROM pg_class WHERE relnamespace = 'roundsman'::regnamespace
UNION ALL SELECT 'constraint', conname, pg_get_constraintdef(oid), NULL, false, NULL, NULL, NULL
  FROM pg_constraint WHERE connamespace = 'roundsman'::regnamespace
UNION ALL SELECT 'function', proname, prosrc, proacl::text, false, NULL, NULL, NULL
  FROM pg_proc WHERE pronamespace = 'roundsman'::regnamespace
UNION ALL SELECT 'schema', nspname, nspacl::text, NULL, false, NULL, NULL, NULL FROM pg_namespace WHERE nspname = 'roundsman'
ORDER BY 1, 2, 3
"""


def install(shop, *arguments, user="postgres"):
    return shop.roundsman("--install", "-d", shop.conninfo(user), *arguments)


def version(shop):
    return shop.value("SELECT max(version) FROM roundsman.migration")


def test_says_what_it_did(bare_shop):
    first, second = install(bare_shop), install(bare_shop)
    assert (first.status, second.status) == (0, 0)
    number = version(bare_shop)
    assert first.out == f"Created the ledger in schema roundsman at version {number}, and granted its use to roundsman.\n"
    assert second.out == (f"The ledger in schema roundsman is at version {number}: nothing to do."
                          " Its use is granted to roundsman.\n")
    assert bare_shop.value("SELECT count(*) FROM roundsman.migration") == number


def test_keeps_what_is_there_and_grants_again(shop):
    shop.sql("INSERT INTO roundsman.job (name, kind, schedule, timezone) VALUES ('x', 'points', '@daily', 'UTC');"
             "REVOKE ALL ON roundsman.lane FROM roundsman; REVOKE USAGE ON SCHEMA roundsman FROM roundsman")
    assert install(shop).status == 0
    with shop.connect("roundsman") as connection:
        assert connection.execute("SELECT name FROM roundsman.job").fetchall() == [("x",)]
        connection.execute("DELETE FROM roundsman.lane")


def test_dry_run_is_the_same_in_psql(bare_shop, shop, tmp_path):
    result = bare_shop.roundsman("--install", "--dry-run", config=bare_shop.configure(
        database={"conninfo": f"host={tmp_path} dbname=nowhere"}))  # it does not connect
    assert result.status == 0
    script = tmp_path / "install.sql"
    script.write_text(result.out)
    for _ in range(2):
        assert bare_shop.server.psql(bare_shop.name, "-f", script) == ""
        assert bare_shop.sql(ANATOMY) == shop.sql(ANATOMY)
    bare_shop.configure()
    assert install(bare_shop).out.startswith("The ledger in schema roundsman is at version")
    assert bare_shop.roundsman("--check").status == 0


def test_every_table_is_granted_and_nothing_else_in_the_schema(bare_shop):
    """A ledger may live in a schema with other things in it: they stay out of the role's reach."""
    bare_shop.sql("CREATE SCHEMA roundsman; CREATE TABLE roundsman.other ()")
    assert install(bare_shop).status == 0
    granted = {name for name, in bare_shop.sql("SELECT relname FROM pg_class WHERE relnamespace = 'roundsman'::regnamespace"
                                               " AND relkind = 'r' AND has_table_privilege('roundsman', oid, 'SELECT')")}
    tables = {name for name, in bare_shop.sql("SELECT relname FROM pg_class WHERE relnamespace = 'roundsman'::regnamespace"
                                              " AND relkind = 'r'")}
    assert granted == tables - {"other"}


@pytest.mark.parametrize("table", ["run", "migration"])
def test_a_schema_with_other_tables_of_our_names(bare_shop, table):
    bare_shop.sql(f"CREATE SCHEMA roundsman; CREATE TABLE roundsman.{table} (name text)")
    result = install(bare_shop)
    assert result.status == 1 and "already exists" not in result.err, result
    assert "nothing was changed" in result.err and "give the ledger a schema of its own" in result.err, result
    assert bare_shop.sql("SELECT relname FROM pg_class WHERE relnamespace = 'roundsman'::regnamespace") == [(table,)]
    # In psql, too.
    script = bare_shop.roundsman("--install", "--dry-run").out
    with bare_shop.connect() as connection:
        with pytest.raises(psycopg.errors.DuplicateTable, match=f"schema roundsman has a table {table} that is not the ledger's"):
            connection.execute(script)
    bare_shop.configure(ledger={"schema": "rounds"})
    assert install(bare_shop).status == 0


def test_names_that_want_quotes(bare_shop):
    bare_shop.sql("""DROP ROLE IF EXISTS "night's ""watch"; CREATE ROLE "night's ""watch" """)
    try:
        bare_shop.configure(ledger={"schema": """Round's "book" """, "role": """night's "watch"""})
        for _ in range(2):
            result = install(bare_shop)
            assert result.status == 0, result
        assert bare_shop.value("""SELECT has_table_privilege('night''s "watch', '"Round''s ""book"" ".run', 'UPDATE')""")
    finally:
        bare_shop.sql("""DROP OWNED BY "night's ""watch"; DROP ROLE "night's ""watch" """)


def test_the_role_comes_first(bare_shop):
    bare_shop.configure(ledger={"role": "watchman"})
    result = install(bare_shop)
    assert result.status == 1
    assert "there is no role watchman" in result.err
    remedy = re.search(r"CREATE ROLE .*;", result.err)[0]
    assert bare_shop.value("SELECT to_regnamespace('roundsman') IS NULL")
    bare_shop.sql(remedy)
    try:
        assert install(bare_shop).status == 0
        with bare_shop.connect("watchman") as connection:
            connection.execute("SELECT FROM roundsman.run")
    finally:
        bare_shop.sql("DROP OWNED BY watchman; DROP ROLE watchman")


def test_by_a_role_that_may_not(bare_shop):
    result = bare_shop.roundsman("--install")  # as configured: the daemon's own role
    assert result.status == 1
    assert f"permission denied for database {bare_shop.name}" in result.err
    assert "--install -d" in result.err


def test_by_the_schemas_owner_who_may_create_none(bare_shop):
    bare_shop.sql("CREATE SCHEMA roundsman AUTHORIZATION roundsman")
    assert bare_shop.roundsman("--install").status == 0
    assert bare_shop.roundsman("--install").status == 0
    assert bare_shop.roundsman("--check").status == 0


def test_a_newer_ledger_is_left_alone(shop):
    shop.sql("INSERT INTO roundsman.migration VALUES (999); REVOKE ALL ON roundsman.lane FROM roundsman")
    result = install(shop)
    assert result.status == 1
    assert "the ledger is at version 999, and this roundsman knows it up to" in result.err
    assert not shop.value("SELECT has_table_privilege('roundsman', 'roundsman.lane', 'SELECT')")


@pytest.mark.parametrize("level", ["read committed", "serializable"])
def test_two_at_once(bare_shop, level):
    bare_shop.sql(f"ALTER DATABASE {bare_shop.name} SET default_transaction_isolation = '{level}'")
    bare_shop.configure()
    results = []
    threads = [threading.Thread(target=lambda: results.append(install(bare_shop))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.status for result in results] == [0] * 4, results
    assert bare_shop.value("SELECT count(*) FROM roundsman.migration") == version(bare_shop)
