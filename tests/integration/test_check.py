# SPDX-License-Identifier: PostgreSQL
"""--check: each thing that stands in a job's way is named, and its remedy, executed as it stands, removes it."""

import contextlib
import re
import socket
import threading

import pytest

from harness import JOBS, YEARLY

POINTS, RESTOCK, CANCEL = JOBS


def check(shop, **configuration):
    shop.configure(**configuration)
    return shop.roundsman("--check")


def problems(result):
    return re.findall(r"^problem: (.*)$", result.out, re.MULTILINE)


def remedies(result):
    return re.findall(r"^    remedy: (.*)$", result.out, re.MULTILINE)


def refuses(result, *patterns):
    """Exactly these problems, in this order."""
    assert result.status == 1, result
    found = problems(result)
    assert len(found) == len(patterns), result.out
    for text, pattern in zip(found, patterns):
        assert re.search(pattern, text), f"{pattern}\n{result.out}"
    number = len(found)
    assert result.out.endswith(f"{number} problem{'s' if number > 1 else ''}.\n")


def all_is_well(result):
    assert result.status == 0, result
    assert result.out.endswith("All is well.\n")


def cancel(**settings):
    return {"jobs": [{**CANCEL, **settings}]}


def bulk(**settings):
    return {"jobs": [{**POINTS, **settings}]}


# What is broken, the configuration, the problems. The remedies are SQL.
MENDED = {
    "no index for the scan": (
        "DROP INDEX shop.orders_unfinished", cancel(),
        [r"table shop.orders: no index finds the stale orders \(status IN \('PAYING'\), by last_modified_at\): each scan"]),
    "an index on the age alone": (
        "DROP INDEX shop.orders_unfinished; CREATE INDEX orders_age ON shop.orders (last_modified_at)", cancel(),
        ["each scan would read all of index orders_age"]),
    "an index on the status alone": (
        "DROP INDEX shop.orders_unfinished; CREATE INDEX ON shop.orders (status)", cancel(statuses=["PAYING", "CREATED"]),
        [r"no index finds the stale orders \(.*'PAYING', 'CREATED'"]),
    "an index for other states": (
        "DROP INDEX shop.orders_unfinished; CREATE INDEX ON shop.orders (last_modified_at, id) WHERE status = 'CREATED'",
        cancel(), ["no index finds the stale orders"]),
    "an invalid index for the scan": (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'shop.orders_unfinished'::regclass", cancel(),
        ["index shop.orders_unfinished is invalid", "no index finds the stale orders"]),
    "a left-over index": (
        "CREATE INDEX users_ccnew ON shop.users (name);"
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'shop.users_ccnew'::regclass", bulk(),
        ["table shop.users: index shop.users_ccnew is invalid"]),
    "no index on the lines": (
        "DROP INDEX shop.order_items_order_id", cancel(), ["table shop.order_items: no index on order_id"]),
    "nullable points": (
        "ALTER TABLE shop.users ALTER points DROP NOT NULL", bulk(), ["^table shop.users: column points is nullable$"]),
    "nullable stock": (
        "ALTER TABLE shop.menu_items ALTER stock DROP NOT NULL", {"jobs": [RESTOCK]},
        ["table shop.menu_items: column stock is nullable"]),
    "nullable columns of orders": (
        "ALTER TABLE shop.orders ALTER status DROP NOT NULL, ALTER points_spent DROP NOT NULL,"
        " ALTER last_modified_at DROP NOT NULL; ALTER TABLE shop.order_items ALTER item_id DROP NOT NULL,"
        " ALTER quantity DROP NOT NULL", cancel(),
        ["status is nullable", "points_spent is nullable", "last_modified_at is nullable", "item_id is nullable",
         "quantity is nullable"]),
    "no key": (
        "ALTER TABLE shop.users DROP CONSTRAINT users_pkey CASCADE", bulk(),
        [r"table shop.users: column id has no unique index of its own .* to walk the table by$"]),
    "a composite key": (
        "ALTER TABLE shop.users DROP CONSTRAINT users_pkey CASCADE, ADD PRIMARY KEY (id, name)", bulk(),
        [r"column id has no unique index .*\(shop.users_pkey is on 2 columns\)"]),
    "a partial key": (
        "ALTER TABLE shop.users DROP CONSTRAINT users_pkey CASCADE; CREATE UNIQUE INDEX u ON shop.users (id) WHERE id > 0",
        bulk(), [r"column id has no unique index .*\(shop.u is partial\)"]),
    "a deferrable key": (
        "ALTER TABLE shop.users DROP CONSTRAINT users_pkey CASCADE, ADD CONSTRAINT u UNIQUE (id) DEFERRABLE", bulk(),
        [r"column id has no unique index .*\(shop.u is deferrable\)"]),
    "an invalid key": (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'shop.users_pkey'::regclass", bulk(),
        [r"column id has no unique index .*\(shop.users_pkey is invalid\)", "index shop.users_pkey is invalid"]),
    "a nullable key": (
        "ALTER TABLE shop.users DROP CONSTRAINT users_pkey CASCADE, ALTER id DROP IDENTITY, ALTER id DROP NOT NULL,"
        " ADD UNIQUE (id)", bulk(), ["^table shop.users: column id is nullable$"]),
    "an index in another collation": (
        'CREATE UNIQUE INDEX u ON shop.users (name COLLATE "C")', bulk() | {"tables": {"users": {"key": "name"}}},
        [r"column name has no unique index .*\(shop.u has another collation than the column\)", r"may not SELECT \(name\)"]),
    "an index in another order": (
        "CREATE UNIQUE INDEX u ON shop.users (name text_pattern_ops); GRANT SELECT (name) ON shop.users TO roundsman",
        bulk() | {"tables": {"users": {"key": "name"}}}, [r"\(shop.u is not in the order of the column's type\)"]),
    "a type whose operators are not found": (
        "CREATE EXTENSION citext SCHEMA public; ALTER TABLE shop.users ALTER name TYPE public.citext, ADD UNIQUE (name);"
        "GRANT SELECT (name) ON shop.users TO roundsman",
        bulk() | {"tables": {"users": {"key": "name"}}}, [r"\(shop.users_name_key compares by operators in another schema"]),
    "no schema grant": ("REVOKE USAGE ON SCHEMA shop FROM roundsman", bulk(), ["table shop.users: role roundsman may not use"]),
    "column grants": (
        "REVOKE SELECT (id, points), UPDATE (points, last_modified_at) ON shop.users FROM roundsman", bulk(),
        [r"role roundsman may not SELECT \(id, points\), UPDATE \(points, last_modified_at\)"]),
    "a column grant": (
        "REVOKE UPDATE (status) ON shop.orders FROM roundsman", cancel(), [r"shop.orders: role roundsman may not UPDATE \(status\)"]),
    "row security": (
        "ALTER TABLE shop.users ENABLE ROW LEVEL SECURITY", bulk(),
        ["row level security applies to role roundsman"]),
    "a rule": (
        "CREATE RULE also AS ON UPDATE TO shop.users DO ALSO NOTHING", bulk(), ["rule also rewrites updates"]),
    "points that do not add up": (
        "ALTER TABLE shop.users ALTER points TYPE double precision", bulk(),
        ["column points is of type double precision; it has to be smallint, integer, bigint or numeric"]),
    "an amount that no integer holds": (
        "ALTER TABLE shop.users ALTER points TYPE integer", bulk(amount=5000000000),
        ["amount = 5000000000 is more than column points can hold, whose type integer ends at 2147483647$"]),
    "a deduction below all integers": (
        "ALTER TABLE shop.users ALTER points TYPE smallint USING 0", bulk(amount=-32769),
        ["amount = -32769 is less than column points can hold, whose type smallint begins at -32768$"]),
    "marks that no smallint holds": (
        "CREATE DOMAIN shop.pieces AS smallint; ALTER TABLE shop.menu_items ALTER stock TYPE shop.pieces",
        {"jobs": [{**RESTOCK, "up_to": 32768},
                  {"name": "fill", "kind": "restock", "schedule": YEARLY, "fill_to": 40000}]},
        ["table shop.menu_items: up_to = 32768 is more .* stock can hold, whose type smallint ends at 32767$", "fill_to = 40000"]),
    "a date": (
        "ALTER TABLE shop.users ALTER last_modified_at TYPE date", bulk(),
        ["column last_modified_at is of type date; it has to be timestamp with time zone"]),
    "an enum without the status": (
        "DROP INDEX shop.orders_unfinished; CREATE TYPE shop.state AS ENUM ('CREATED', 'PAYING', 'PAID');"
        "ALTER TABLE shop.orders DROP CONSTRAINT orders_status_check, ALTER status DROP DEFAULT,"
        " ALTER status TYPE shop.state USING (CASE status WHEN 'CANCELED' THEN 'PAID' ELSE status END)::shop.state;"
        "CREATE INDEX ON shop.orders (last_modified_at, id) WHERE status IN ('CREATED', 'PAYING')", cancel(),
        ["column status cannot be 'CANCELED': invalid input value for enum"]),
    "a column of where": (
        "", bulk(where="name <> ''"), [r"where = \"name <> ''\" cannot be evaluated: permission denied for table users"]),
    "a function of call": (
        "CREATE FUNCTION shop.cancel_order(bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true';"
        "REVOKE EXECUTE ON FUNCTION shop.cancel_order(bigint) FROM PUBLIC", cancel(call="shop.cancel_order"),
        ["call = \"shop.cancel_order\" cannot cancel its rows: permission denied for function cancel_order"]),
    "no lock with call": (
        "CREATE FUNCTION shop.cancel_order(bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true';"
        "REVOKE ALL ON shop.orders FROM roundsman; GRANT SELECT ON shop.orders TO roundsman",
        cancel(call="shop.cancel_order"), [r"table shop.orders: role roundsman may not UPDATE \(status\)"]),
    "no grants on the ledger": (
        "REVOKE ALL ON roundsman.lane, roundsman.run FROM roundsman; REVOKE DELETE ON roundsman.job FROM roundsman", bulk(),
        ["may not DELETE on roundsman.job", "may not SELECT, INSERT, UPDATE, DELETE on roundsman.lane, roundsman.run"]),
    "no grant on the ledger's schema": (
        "REVOKE USAGE ON SCHEMA roundsman FROM roundsman", bulk(), ["may not use the ledger's schema roundsman"]),
    "settled in the future": (
        "INSERT INTO roundsman.job (name, kind, schedule, timezone, settled_through) VALUES"
        " ('daily-points', 'points', '@daily', 'UTC', now() + interval '1 day')", bulk(),
        ["job daily-points: it is settled through .* which the server's clock has not reached"]),
}


@pytest.fixture
def same_role(server):
    """What is granted to the role outlives the test's database."""
    yield
    with server.connect() as connection:
        connection.execute("ALTER ROLE roundsman NOBYPASSRLS")


@pytest.mark.parametrize("name", MENDED)
def test_mended_by_its_remedy(shop, same_role, name):
    broken, configuration, patterns = MENDED[name]
    shop.sql(broken or "SELECT")
    result = check(shop, **configuration)
    refuses(result, *patterns)
    assert len(remedies(result)) == len(patterns), result.out
    for remedy in remedies(result):
        if "CONCURRENTLY" in remedy:
            assert remedy.count(";") == 1, remedy
        shop.sql(remedy)
    all_is_well(shop.roundsman("--check"))


USERS = {"tables": {"users": {"table": "shop.other"}}}

# The same where the operator has to decide: no SQL does it.
REFUSED = {
    "a view": ("CREATE VIEW shop.other AS TABLE shop.users", bulk() | USERS, ["shop.other: it is a view"]),
    "a materialized view": (
        "CREATE MATERIALIZED VIEW shop.other AS TABLE shop.users", bulk() | USERS, ["shop.other: it is a materialized view"]),
    "a foreign table": (
        "CREATE FOREIGN DATA WRAPPER none; CREATE SERVER far FOREIGN DATA WRAPPER none;"
        "CREATE FOREIGN TABLE shop.other (id bigint NOT NULL, points bigint NOT NULL, last_modified_at timestamptz) SERVER far",
        bulk() | USERS, ["shop.other: it is a foreign table"]),
    "a foreign partition": (
        "CREATE FOREIGN DATA WRAPPER none; CREATE SERVER far FOREIGN DATA WRAPPER none;"
        "CREATE TABLE shop.other (id bigint NOT NULL, points bigint NOT NULL, last_modified_at timestamptz)"
        " PARTITION BY RANGE (id); CREATE INDEX ON shop.other (id); GRANT SELECT, UPDATE ON shop.other TO roundsman;"
        "CREATE FOREIGN TABLE shop.far PARTITION OF shop.other FOR VALUES FROM (0) TO (9) SERVER far",
        bulk() | USERS, ["a partition of it is a foreign table", "no unique index"]),
    "an inheritance parent": (
        "CREATE TABLE shop.heir () INHERITS (shop.users)", bulk(), ["table shop.users: other tables inherit from it"]),
    "partitioned by what changes": (
        "CREATE TABLE shop.other (id bigint NOT NULL, points bigint NOT NULL, last_modified_at timestamptz)"
        " PARTITION BY RANGE (points); GRANT SELECT, UPDATE ON shop.other TO roundsman", bulk() | USERS,
        ["it is partitioned by column points, which the job changes"]),
    "partitioned by what is not the key": (
        "CREATE TABLE shop.other (id bigint NOT NULL, points bigint NOT NULL, last_modified_at timestamptz, born date,"
        " PRIMARY KEY (id, born)) PARTITION BY RANGE (born); GRANT SELECT, UPDATE ON shop.other TO roundsman", bulk() | USERS,
        [r"it is partitioned by RANGE \(born\), so that it can have no unique index on column id alone"]),
    "partitioned by an expression": (
        "CREATE TABLE shop.other (id bigint NOT NULL, points bigint NOT NULL, last_modified_at timestamptz)"
        " PARTITION BY HASH ((id / 2)); GRANT SELECT, UPDATE ON shop.other TO roundsman", bulk() | USERS,
        [r"it is partitioned by HASH \(\(\(?id / .*so that it can have no unique index on column id alone"]),
    # As PostgreSQL 18 has it in the catalog, in which the server here takes no notice of it.
    "a NOT NULL that is not validated": (
        "INSERT INTO pg_constraint SELECT (jsonb_populate_record(c, jsonb_build_object('oid', 99999999, 'conname', 'Filled',"
        " 'contype', 'n', 'convalidated', false, 'conkey', '{3}'))).* FROM pg_constraint c WHERE conname = 'users_pkey'", bulk(),
        ["table shop.users: column points may have NULLs from before its constraint \"Filled\", which is NOT VALID"]),
    "no table": ("", bulk() | USERS, ["table shop.other: there is no such table"]),
    "no schema": ("", bulk() | {"tables": {"users": {"table": "ship.users"}}}, ["there is no schema ship in this database"]),
    "no column": ("", bulk() | {"tables": {"users": {"points": "pints"}}}, ["table shop.users: there is no column pints"]),
    "points in a unique index": (
        "CREATE UNIQUE INDEX u ON shop.users (points, id)", bulk(), ["column points is in the unique index shop.u"]),
    "a generated column": (
        "ALTER TABLE shop.menu_items ADD twice bigint NOT NULL GENERATED ALWAYS AS (price * 2) STORED;"
        "GRANT SELECT, UPDATE ON shop.menu_items TO roundsman", {"jobs": [RESTOCK], "tables": {"items": {"stock": "twice"}}},
        ["column twice is generated by the server"]),
    "a key without an order": (
        "ALTER TABLE shop.users ADD place point NOT NULL DEFAULT '(0,0)'; GRANT SELECT ON shop.users TO roundsman",
        bulk() | {"tables": {"users": {"key": "place"}}}, ["column place cannot be its key: its type has no order"]),
    "a timestamp without a zone": (
        "ALTER TABLE shop.users ALTER last_modified_at TYPE timestamp", bulk(),
        ["column last_modified_at is a timestamp without time zone, by which a fresh order can look hours old"]),
    "a zone for a timestamptz": (
        "", bulk() | {"tables": {"users": {"touched_zone": "Asia/Seoul"}}},
        ["column last_modified_at is a timestamp with time zone, which touched_zone does not fit"]),
    "a status that is too long": (
        "DROP INDEX shop.orders_unfinished; ALTER TABLE shop.orders DROP CONSTRAINT orders_status_check,"
        " ALTER status TYPE varchar(7) USING left(status, 7);"
        "CREATE INDEX ON shop.orders (last_modified_at, id) WHERE status = 'PAYING'", cancel(),
        [r"column status cannot be 'CANCELED': its type is character varying\(7\)"]),
    "a status that a constraint forbids": (
        "", cancel(canceled="CANCELLED"), [r"column status cannot be 'CANCELLED': CHECK \(.*status.*PAID"]),
    "a misspelt status": ("", cancel(statuses=["PAYNG"]), ["column status cannot be 'PAYNG': CHECK"]),
    "a word for a number": (
        "ALTER TABLE shop.orders ADD code smallint NOT NULL DEFAULT 1; GRANT SELECT, UPDATE ON shop.orders TO roundsman;"
        "CREATE INDEX ON shop.orders (last_modified_at, id) WHERE code IN (1, 2)",
        cancel(statuses=[1, 2], canceled="CANCELED") | {"tables": {"orders": {"status": "code"}}},
        ["column code cannot be 'CANCELED': invalid input syntax for type smallint"]),
    "a user of another type": (
        "ALTER TABLE shop.orders ADD buyer uuid; GRANT SELECT ON shop.orders TO roundsman",
        cancel() | {"tables": {"orders": {"user": "buyer"}}},
        ["column buyer is of type uuid and cannot hold a key of shop.users, whose id is of type bigint"]),
    "a where that ends too early": ("", bulk(where="points >"), ["where = \"points >\" is no valid SQL condition$"]),
    "a where that is no SQL": (
        "", bulk(where="points > > 5 5"), ['where = ".*" is no valid SQL condition: syntax error at or near ">"$']),
    "a where without the end of a text": (
        "", bulk(where="'a' = 'b"), ["where = \"'a' = 'b\" is no valid SQL condition: unterminated quoted string$"]),
    "a where that is no condition": (
        "", bulk(where="points + 1"), ["is no valid SQL condition: it must be type boolean, not type bigint$"]),
    "a where of a column that is not there": (
        "", bulk(where="pints > 1"), ['where = "pints > 1" cannot be evaluated: column "pints" does not exist$']),
    "a where that breaks out": (
        "", bulk(where="true) OR (true"), [r'is no valid SQL condition: syntax error at or near "\)"$']),
    "no function of call": (
        "", cancel(call="shop.cancel_order"), [r"cannot cancel its rows: function shop.cancel_order\(bigint\) does not exist"]),
    "a call that says nothing": (
        "CREATE FUNCTION shop.cancel_order(bigint) RETURNS integer LANGUAGE sql AS 'SELECT 1'", cancel(call="shop.cancel_order"),
        ["cannot cancel its rows: argument of WHERE must be type boolean, not type integer"]),
    "a procedure for call": (
        "CREATE PROCEDURE shop.cancel_order(bigint) LANGUAGE sql AS 'SELECT 1'", cancel(call="shop.cancel_order"),
        [r"cannot cancel its rows: shop.cancel_order\(bigint\) is a procedure"]),
    "a lock_timeout near deadlock_timeout": (
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = 800', current_database()); END $$",
        bulk(lock_timeout="500ms"), ["its lock_timeout of 500ms is not well below the server's deadlock_timeout of 800ms"]),
    "an older ledger": ("DELETE FROM roundsman.migration", bulk(), ["is at version 0, and this roundsman needs version"]),
    "a newer ledger": ("INSERT INTO roundsman.migration VALUES (999)", bulk(), ["is at version 999, and this roundsman knows it"]),
    "no ledger": ("DROP SCHEMA roundsman CASCADE", bulk(), ["there is no ledger in schema roundsman"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_reason(shop, name):
    broken, configuration, patterns = REFUSED[name]
    shop.sql(broken or "SELECT")
    refuses(check(shop, **configuration), *patterns)


# Other people's schemas, in which nothing is wrong.
FINE = {
    "partitioned by the key": (
        "CREATE TABLE shop.other (id bigint PRIMARY KEY, points integer NOT NULL, last_modified_at timestamptz)"
        " PARTITION BY HASH (id); CREATE TABLE shop.other_0 PARTITION OF shop.other FOR VALUES WITH (modulus 1, remainder 0);"
        "GRANT SELECT, UPDATE ON shop.other TO roundsman", bulk() | USERS),
    "names that want quotes, in the public schema": (
        'CREATE TABLE "Us""ers" ("Id" uuid PRIMARY KEY, "the points" numeric(20, 2) NOT NULL);'
        'GRANT SELECT, UPDATE ON "Us""ers" TO roundsman', bulk(where="\"the points\" > 0 -- all of t's")
        | {"tables": {"users": {"table": 'Us"ers', "key": "Id", "points": "the points", "touched": ""}}}),
    "a domain, and a text key": (
        "CREATE DOMAIN shop.amount AS bigint NOT NULL; CREATE DOMAIN shop.amounts AS shop.amount;"
        "CREATE TABLE shop.other (id varchar(20) PRIMARY KEY, points shop.amounts, last_modified_at timestamptz);"
        "GRANT SELECT, UPDATE ON shop.other TO roundsman", bulk() | USERS),
    "the most that an integer holds": (
        "ALTER TABLE shop.users ALTER points TYPE integer", bulk(amount=2147483647)),
    "an amount that a numeric holds": ("ALTER TABLE shop.users ALTER points TYPE numeric", bulk(amount=5000000000)),
    "a timestamp and its zone": (
        "DROP INDEX shop.orders_unfinished; ALTER TABLE shop.orders ALTER last_modified_at TYPE timestamp;"
        "CREATE INDEX ON shop.orders (last_modified_at, id) WHERE status = 'PAYING'",
        cancel() | {"tables": {"orders": {"touched_zone": "Asia/Seoul"}}}),
    "statuses as an enum": (
        "DROP INDEX shop.orders_unfinished; CREATE TYPE shop.state AS ENUM ('CREATED', 'PAYING', 'PAID', 'CANCELED');"
        "ALTER TABLE shop.orders DROP CONSTRAINT orders_status_check, ALTER status DROP DEFAULT,"
        " ALTER status TYPE shop.state USING status::shop.state;"
        "CREATE INDEX ON shop.orders (last_modified_at, id) WHERE status IN ('CREATED', 'PAYING')",
        cancel(statuses=["PAYING"], unpaid_statuses=["CREATED"])),
    "statuses as numbers": (
        "ALTER TABLE shop.orders ADD code smallint NOT NULL DEFAULT 1; GRANT SELECT, UPDATE ON shop.orders TO roundsman;"
        "CREATE INDEX ON shop.orders (last_modified_at, id) WHERE code IN (1, 2)",
        cancel(statuses=[1, 2], canceled="9") | {"tables": {"orders": {"status": "code"}}}),
    "an index by status and age": (
        "DROP INDEX shop.orders_unfinished; CREATE INDEX ON shop.orders (status, last_modified_at, id)", cancel()),
    "orders that only change state need no other table": (
        "REVOKE ALL ON shop.menu_items, shop.users, shop.order_items FROM roundsman",
        cancel(statuses=[], unpaid_statuses=["CREATED"])),
    "no points spent": (
        "REVOKE ALL ON shop.users FROM roundsman", cancel() | {"tables": {"orders": {"points_spent": ""}}}),
    "a call with a wider argument": (
        "CREATE FUNCTION shop.cancel_order(numeric) RETURNS boolean LANGUAGE sql AS 'SELECT true';"
        "REVOKE ALL ON shop.menu_items, shop.users, shop.order_items FROM roundsman", cancel(call="shop.cancel_order")),
    "a job that is not enabled": ("DROP TABLE shop.order_items", {"jobs": [POINTS, {**CANCEL, "enabled": False}]}),
}


@pytest.mark.parametrize("name", FINE)
def test_nothing_wrong(shop, name):
    prepared, configuration = FINE[name]
    shop.sql(prepared)
    all_is_well(check(shop, **configuration))


def test_a_value_that_fails_for_every_row_is_refused_when_a_run_starts(shop):
    shop.sql("ALTER TABLE shop.users ALTER points TYPE integer")
    shop.configure(jobs=[POINTS])
    result = shop.roundsman("--run-once", "daily-points", "--set", "amount=5000000000")
    assert result.status == 1 and "amount = 5000000000 is more than column points can hold" in result.err, result
    assert shop.runs() == []


def test_a_trigger_whose_names_are_not_found(shop):
    shop.sql("CREATE TABLE public.audit (id bigint); GRANT INSERT ON public.audit TO roundsman;"
             "CREATE FUNCTION shop.note() RETURNS trigger LANGUAGE plpgsql AS"
             " $$ BEGIN INSERT INTO audit VALUES (NEW.id); RETURN NEW; END $$;"
             "CREATE FUNCTION shop.knows_its_way() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS"
             " $$ BEGIN INSERT INTO audit VALUES (NEW.id); RETURN NEW; END $$")
    for timing, function in (("UPDATE", "knows_its_way"), ("INSERT", "note"), ("UPDATE OF name", "note"), ("UPDATE", "note")):
        shop.sql(f'CREATE TRIGGER "{timing} {function}" AFTER {timing} ON shop.users FOR EACH ROW'
                 f" EXECUTE FUNCTION shop.{function}();")
    shop.sql('CREATE TRIGGER off AFTER UPDATE ON shop.users EXECUTE FUNCTION shop.note();'
             'ALTER TABLE shop.users DISABLE TRIGGER off')
    result = check(shop)
    all_is_well(result)
    [text] = re.findall("^advice: (.*)", result.out, re.MULTILINE)
    assert text.startswith('table shop.users: trigger "UPDATE note" calls shop.note, which has no search_path of its own')
    assert "are looked for in shop alone" in text
    shop.sql(remedies(result)[0])
    assert "advice" not in check(shop).out
    shop.sql('DROP TRIGGER "UPDATE knows_its_way" ON shop.users')
    assert shop.roundsman("--run-once", "daily-points").status == 0
    assert shop.value("SELECT count(*) FROM audit") == 1000


def test_a_trigger_where_all_names_are_found(shop):
    """What the path of every session has by default is no more than ours."""
    shop.sql("ALTER TABLE shop.users SET SCHEMA public; GRANT SELECT, UPDATE ON public.users TO roundsman;"
             "CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;"
             "CREATE TRIGGER note BEFORE UPDATE ON public.users FOR EACH ROW EXECUTE FUNCTION public.note()")
    result = check(shop, **bulk(), tables={"users": {"table": "users"}})
    all_is_well(result)
    assert "advice" not in result.out


def test_shows_each_job_with_its_zone_and_a_shared_problem_once(shop):
    shop.sql("ALTER TABLE shop.users ALTER points DROP NOT NULL")
    result = check(shop, defaults={"timezone": "Asia/Seoul"},
                   jobs=[POINTS, {**POINTS, "name": "weekly", "timezone": "Europe/Berlin"}, CANCEL])
    refuses(result, "points is nullable")
    assert f"job daily-points: points, {YEARLY} in Asia/Seoul\n" in result.out
    assert f"job weekly: points, {YEARLY} in Europe/Berlin\n" in result.out
    assert result.out.index("job daily-points") < result.out.index("problem:") < result.out.index("job weekly")


def test_notes_a_schedule_that_is_not_applied_yet(shop):
    shop.sql("INSERT INTO roundsman.job (name, kind, schedule, timezone) VALUES"
             f" ('daily-points', 'points', '0 5 * * *', 'UTC'), ('restock', 'restock', '{YEARLY}', 'UTC')")
    result = check(shop)
    all_is_well(result)
    assert re.findall("^note: .*", result.out, re.MULTILINE) == [
        "note: the ledger has job daily-points with 0 5 * * * in UTC: what the file says takes effect when a daemon starts"
        " or reloads with it"]


def test_a_clock_apart(shop):
    shop.configure(max_clock_skew="30s")
    for offset, apart, text in (("+1h", "(59m59s|1h00m)", "behind"), ("-2m", "(1m59s|2m00s)", "ahead of")):
        result = shop.roundsman("--check", faketime=offset)
        refuses(result, rf"the server's clock is {apart} {text} this host's, and nothing is settled beyond 30s")
        assert re.search(f", its clock {apart} {text} this host's$", result.out, re.MULTILINE), result.out
    shop.configure(max_clock_skew="2h")
    all_is_well(shop.roundsman("--check", faketime="+1h"))


def test_leftovers_and_runs_that_nobody_will_finish(shop):
    shop.sql("INSERT INTO roundsman.job (name, kind, schedule, timezone) VALUES ('restock', 'restock', '@daily', 'UTC'),"
             " ('gone', 'points', '@daily', 'UTC');"
             "INSERT INTO roundsman.run (job_id, due, trigger, state, params, started_at)"
             " VALUES (1, '2026-01-01Z', 'schedule', 'partial', '{}', now()), (1, NULL, 'manual', 'done', '{}', now()),"
             " (2, '2026-01-02Z', 'schedule', 'interrupted', '{}', now());"
             "INSERT INTO roundsman.leftover (run_id, key, lane, reason, error)"
             " SELECT 1, n::text, 0, CASE WHEN n > 7 THEN 'locked' ELSE 'failed' END, CASE n WHEN 7 THEN 'no room' END"
             " FROM generate_series(7, 10) AS n")
    result = check(shop)
    refuses(result, r"job restock: run 1 \(2026-01-01T00:00:00Z\) left 4 rows over: 7 \(no room\), 8 \(locked\), 9 \(locked\), …",
            r"job gone is not in the file, and its run 3 \(2026-01-02T00:00:00Z\) is interrupted")
    assert remedies(result)[0].endswith("roundsman --abandon restock -n 1")
    assert remedies(result)[1] == "roundsman --abandon gone -n 3"
    # The remedies help, although what was given up stays on record.
    for job, run in (("restock", 1), ("gone", 3)):
        assert shop.roundsman("--abandon", job, "-n", run).status == 0
    assert shop.value("SELECT count(*) FROM roundsman.leftover") == 4
    all_is_well(check(shop))


def test_a_server_that_is_not_there(shop, tmp_path):
    result = check(shop, database={"conninfo": f"host={tmp_path} dbname=shop"})
    refuses(result, "^no connection to the database: .*No such file or directory")


def test_a_standby(own_shop):
    standby = own_shop.server.standby()
    try:
        result = check(own_shop, database={"conninfo": standby.conninfo(own_shop.name, "roundsman")})
        refuses(result, "the server is a standby")
    finally:
        standby.remove()


def test_the_lag_of_replicas(shop):
    """Its own test, as roles are the whole server's."""
    shop.sql("DROP ROLE IF EXISTS \"Watch man\"")
    shop.sql("CREATE ROLE \"Watch man\" LOGIN IN ROLE roundsman")
    try:
        database = {"conninfo": f"{shop.server.conninfo(shop.name, '')}'Watch man'"}
        all_is_well(check(shop, database=database, max_slot_wal="10GB"))  # which everybody may read
        result = check(shop, database=database, max_replica_lag="10s")
        refuses(result, 'max_replica_lag is set, but role "Watch man" cannot read the lag of replicas')
        assert remedies(result) == ['GRANT pg_read_all_stats TO "Watch man";']
        shop.sql(remedies(result)[0])
        all_is_well(check(shop, database=database, max_replica_lag="10s"))
    finally:
        shop.sql("DROP ROLE \"Watch man\"")


@contextlib.contextmanager
def pooler(server, directory):
    """Answers with another process's number, as a pooler does: the least of one."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(directory / ".s.PGSQL.5432"))
    listener.listen()

    def pump(source, sink):
        while chunk := source.recv(65536):
            head, key, rest = chunk.partition(b"K\0\0\0\x0c")
            if key:
                chunk = head + key + b"\0\0\0\x01" + rest[4:]
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)

    def serve():
        with contextlib.suppress(OSError):
            client, _ = listener.accept()
            backend = socket.socket(socket.AF_UNIX)
            backend.connect(f"{server.socket}/.s.PGSQL.5432")
            back = threading.Thread(target=pump, args=(backend, client), daemon=True)
            back.start()
            pump(client, backend)
            back.join()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"host={directory}"
    finally:
        listener.close()
        thread.join(10)


def test_a_pooler(shop, tmp_path):
    with pooler(shop.server, tmp_path) as host:
        result = check(shop, database={"conninfo": f"{host} dbname={shop.name} user=roundsman"})
    refuses(result, "a pooler answers in the server's place")
