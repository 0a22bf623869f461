# SPDX-License-Identifier: PostgreSQL
"""The parts of the benchmark: what is measured against what. Each yields records; figures.py makes the table of them.

A contender that is measured under live traffic gets a fresh copy of the same shop: loaded into shared_buffers,
checkpointed, with traffic of the same seed before and beside it. The order of contenders rotates from round to round.
After each of them the sums of points and stock are checked.
"""

import contextlib
import dataclasses
import subprocess

from rig import BENCH, Failure, timed, under_traffic

PACES = "full", "normal", "gentle"
PATIENCE = 60  # seconds, after which cancel (a) and (b) stop on a slow disk: their rate is the figure


@dataclasses.dataclass
class Sizes:
    """How much; see SIZES in run."""

    users: int          # of the shop
    orders: int         # stale ones, and as many others
    orm: int            # users of contender (c) of points
    seed: int           # orders of contender (c) of cancel
    growth: tuple       # users, ascending
    backlog: tuple      # orders among which 100 are stale
    latency_rounds: int
    rounds: int
    idle: float         # seconds of traffic alone before each contender


def rotated(contenders, number):
    names = list(contenders)
    return names[number % len(names):] + names[:number % len(names)]


def interleaved(server, part, template, contenders, rounds, check, candidates=None, **traffic):
    """Rounds of all contenders, each on a copy of the template: {name: function(dbname) -> record}.

    `candidates`: of how many orders payments are approved meanwhile, by the contender's name."""
    for number in range(rounds):
        for contender in rotated(contenders, number):
            with server.copy(template) as dbname:
                record = under_traffic(server, dbname, lambda: contenders[contender](dbname), seed=number + 1,
                                       candidates=(candidates or {}).get(contender, 0), **traffic)
                check(server, dbname, record)
            yield {"part": part, "contender": contender, "round": number + 1, **record}


@contextlib.contextmanager
def template(server, name, **sizes):
    settle = sizes.pop("settle", True)
    server.make(name, **sizes)
    if settle:
        server.settle(name)
    server.sql(name, "CREATE TABLE bench.before AS SELECT (SELECT sum(points) FROM shop.users) AS points,"
               " (SELECT sum(stock) FROM shop.menu_items) AS stock,"
               " (SELECT coalesce(max(id), 0) FROM shop.orders) AS last")
    yield name
    server.drop(name)


# ---- points ----

def check_points(server, dbname, record):
    """Every row that was counted got its point, and live orders took theirs."""
    wrong = server.sql(dbname, "SELECT (SELECT sum(points) FROM shop.users) - points"
                       " + (SELECT count(*) FROM shop.orders WHERE id > last) FROM bench.before")[0][0] - record["rows"]
    if wrong:
        raise Failure(f"points are off by {wrong} after a round of {record['rows']} rows")


EVERY_USER = "UPDATE shop.users SET points = points + 1, last_modified_at = now()"


def one_update(server):
    """(a)"""
    def work(dbname):
        with server.connect(dbname, "contender") as connection:
            return timed(lambda: connection.execute(EVERY_USER).rowcount)
    return work


def committing(server, users):
    """(b)"""
    def work(dbname):
        with server.connect(dbname, "contender") as connection:
            return timed(lambda: connection.execute("CALL bench.add_points(%s)", [users]) and users)
    return work


def orm(server, count):
    """(c): what bulk_update() of an ORM sends. Literals in the text, as such libraries do."""
    def update(connection):
        rows = connection.execute("SELECT id, points FROM shop.users WHERE id <= %s ORDER BY id FOR UPDATE",
                                  [count]).fetchall()
        for start in range(0, len(rows), 500):
            chunk = rows[start:start + 500]
            cases = " ".join(f"WHEN id = {key} THEN {points + 1}" for key, points in chunk)
            keys = ", ".join(str(key) for key, _ in chunk)
            connection.execute(f"UPDATE shop.users SET points = CASE {cases} ELSE NULL END, last_modified_at = now()"
                               f" WHERE id IN ({keys})")
        connection.commit()
        return len(rows)

    def work(dbname):
        with server.connect(dbname, "contender", autocommit=False) as connection:
            return timed(update, connection)
    return work


def points(server, sizes):
    contenders = {"a": one_update(server), "b": committing(server, sizes.users), "c": orm(server, sizes.orm)}
    for pace in PACES:
        contenders[pace] = lambda dbname, pace=pace: server.roundsman(dbname, "points", pace)
    with template(server, "shop", users=sizes.users) as shop:
        traffic = {"users": sizes.users, "idle": sizes.idle}
        yield from interleaved(server, "points", shop, contenders, sizes.latency_rounds, check_points, **traffic)
    script = server.directory / "traffic-uuid.sql"
    script.write_text((BENCH / "traffic.sql").read_text().replace(":user,", "md5(:user::text)::uuid,")
                      .replace("id = :user;", "id = md5(:user::text)::uuid;"))
    with template(server, "shop_uuid", users=sizes.users, uuid=True) as shop:
        contenders = {"a": one_update(server), "full": lambda dbname: server.roundsman(dbname, "points")}
        yield from interleaved(server, "uuid", shop, contenders, sizes.rounds, check_points, script=script, **traffic)
    with template(server, "shop_full_pages", users=sizes.users, full_pages=True, settle=False) as shop:
        contenders = {"a": one_update(server), "b": committing(server, sizes.users),
                      "full": lambda dbname: server.roundsman(dbname, "points")}
        yield from interleaved(server, "full pages", shop, contenders, sizes.rounds, check_points, **traffic)


# ---- cancel ----

CANDIDATE = "status = 'PAYING' AND last_modified_at <= now() - interval '30 minutes'"


def check_cancel(server, dbname, record):
    """What canceled orders had taken came back once; record["rows"] becomes what the orders themselves say."""
    points, stock, done = server.sql(dbname, """
        WITH done AS (SELECT o.* FROM shop.orders o, bench.before b WHERE o.id <= b.last AND o.status = 'CANCELED'),
        live AS (SELECT o.* FROM shop.orders o, bench.before b WHERE o.id > b.last)
        SELECT (SELECT sum(points) FROM shop.users) - b.points - (SELECT coalesce(sum(points_spent), 0) FROM done)
                   + (SELECT coalesce(sum(points_spent), 0) FROM live),
               (SELECT sum(stock) FROM shop.menu_items) - b.stock
                   - (SELECT coalesce(sum(quantity), 0) FROM shop.order_items WHERE order_id IN (SELECT id FROM done))
                   + (SELECT coalesce(sum(quantity), 0) FROM shop.order_items WHERE order_id IN (SELECT id FROM live)),
               (SELECT count(*) FROM done)
        FROM bench.before b""")[0]
    if points or stock:
        raise Failure(f"after a round of cancels points are off by {points}, stock by {stock}")
    if record["rows"] and abs(done - record["rows"]) > record["rows"] // 10:
        raise Failure(f"{done} orders are canceled, not {record['rows']}")
    record["rows"] = done


def one_by_one(server, orders):
    """(a): pgbench as the client, since it is a fast one; it need not even look for the candidates.

    How many it did, the orders tell."""
    script = server.directory / "one-by-one.sql"
    script.write_text("\\set order :order + 1\nSELECT bench.cancel_one(:order);\n")

    def cancel(dbname):
        command = [server.bin / "pgbench", "-n", "-h", server.socket, "-U", "contender", "-c", 1, "-M", "prepared",
                    "-t", orders, "-f", script, "-D", "order=0", dbname]
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.run(command, timeout=PATIENCE)
        return None
    return lambda dbname: timed(cancel, dbname)


def procedure(server):
    """(b)"""
    def work(dbname):
        with server.connect(dbname, "contender") as connection:
            return timed(lambda: connection.execute("CALL bench.cancel_all(%s)", [PATIENCE]) and None)
    return work


def outer_transaction(server, count):
    """(c): the seed of the idea, on the oldest orders."""
    def cancel(outer, second):
        rows = outer.execute(f"SELECT id FROM shop.orders WHERE {CANDIDATE} AND id <= %s"
                             " ORDER BY last_modified_at, id FOR UPDATE", [count]).fetchall()
        for row in rows:
            second.execute("SELECT bench.give_back(%s)", row)
            outer.execute("UPDATE shop.orders SET status = 'CANCELED', last_modified_at = now() WHERE id = %s", row)
        outer.commit()
        return len(rows)

    def work(dbname):
        with server.connect(dbname, "contender", autocommit=False) as outer:
            with server.connect(dbname, "contender") as second:
                return timed(cancel, outer, second)
    return work


# Items before users, as live traffic locks them: without the count, users come first, and deadlocks with them.
SET_BASED = f"""
WITH held AS MATERIALIZED (
    SELECT id, user_id, points_spent FROM shop.orders WHERE {CANDIDATE} FOR NO KEY UPDATE
), stock AS (
    UPDATE shop.menu_items AS i SET stock = i.stock + l.quantity, last_modified_at = now()
    FROM (SELECT item_id, sum(quantity) AS quantity
          FROM shop.order_items JOIN held ON order_id = held.id GROUP BY 1) AS l
    WHERE i.id = l.item_id
    RETURNING 1
), points AS (
    UPDATE shop.users AS u SET points = u.points + h.points, last_modified_at = now()
    FROM (SELECT user_id, sum(points_spent) AS points FROM held WHERE points_spent > 0 GROUP BY 1) AS h
    WHERE u.id = h.user_id AND (SELECT count(*) FROM stock) >= 0
)
UPDATE shop.orders AS o SET status = 'CANCELED', last_modified_at = now() FROM held WHERE o.id = held.id"""


def set_based(server):
    """(d)"""
    def work(dbname):
        with server.connect(dbname, "contender") as connection:
            return timed(lambda: connection.execute(SET_BASED).rowcount)
    return work


def cancel(server, sizes):
    contenders = {"a": one_by_one(server, sizes.orders), "b": procedure(server),
                  "c": outer_transaction(server, sizes.seed), "d": set_based(server),
                  "full": lambda dbname: server.roundsman(dbname, "cancel")}
    with template(server, "shop", users=sizes.users, orders=sizes.orders, others=sizes.orders) as shop:
        traffic = {"users": sizes.users, "idle": sizes.idle}
        # Payments are of orders that the contender locks: all of them, or those of (c).
        candidates = {**dict.fromkeys(contenders, sizes.orders), "c": sizes.seed}
        yield from interleaved(server, "cancel", shop, contenders, sizes.rounds, check_cancel, candidates, **traffic)


# ---- growth, without traffic ----

def growth(server, sizes):
    for users in sizes.growth:
        with template(server, "shop", users=users, settle=False) as shop:
            server.settle(shop, 1)
            for number in range(sizes.rounds):
                server.warm(shop)
                record = server.roundsman(shop, "points")
                server.sql(shop, "VACUUM shop.users")
                yield {"part": "growth", "contender": "points", "size": users, "round": number + 1, **record}
    for orders in sizes.backlog:
        with template(server, "shop", users=10000, orders=100, others=orders - 100, settle=False) as shop:
            for number in range(max(5, sizes.rounds)):
                server.warm(shop)
                yield {"part": "growth", "contender": "cancel", "size": orders, "round": number + 1,
                       **cancel_hundred(server, shop)}
                server.sql(shop, "UPDATE shop.orders SET status = 'PAYING', last_modified_at = now() - interval '1 day'"
                           " - (100 - id) * interval '50 ms' WHERE id <= 100", "VACUUM shop.orders")


TOUCHED = """
SELECT relname, seq_tup_read, coalesce(heap_blks_hit + heap_blks_read, 0), coalesce(idx_blks_hit + idx_blks_read, 0)
FROM pg_stat_user_tables JOIN pg_statio_user_tables USING (relid, relname)
WHERE relid IN ('shop.orders'::regclass, 'shop.order_items'::regclass)"""


def cancel_hundred(server, shop):
    """A round of 100, with what it touched of the tables that grow: rows read by scans, heap and index buffers."""
    before = {row[0]: row[1:] for row in server.sql(shop, TOUCHED)}
    record = server.roundsman(shop, "cancel")
    after = {row[0]: row[1:] for row in server.sql(shop, TOUCHED)}
    scanned, heap, index = (sum(after[name][i] - before[name][i] for name in after) for i in range(3))
    if record["rows"] != 100:
        raise Failure(f"{record['rows']} orders were canceled, not 100")
    return {**record, "scanned": scanned, "heap_buffers": heap, "index_buffers": index}


# ---- WAL a row, period after period on one table, without traffic ----

def wal(server, sizes):
    work = {"a": one_update(server), "full": lambda dbname: server.roundsman(dbname, "points")}
    with template(server, "shop", users=sizes.users, settle=False) as shop:
        for contender in work:
            with server.copy(shop) as dbname:
                for period in range(1, 7):
                    before = server.sql(dbname, WAL)[0]
                    record = work[contender](dbname)
                    position, images = server.sql(dbname, WAL)[0]
                    server.sql(dbname, "VACUUM shop.users")
                    yield {"part": "wal", "contender": contender, "round": period, **record,
                           "bytes": int(position - before[0]), "full_pages": images - before[1]}


WAL = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn, (SELECT wal_fpi FROM pg_stat_wal)"


# ---- stuck rows, without traffic ----

def stuck(server, sizes):

    def undisturbed(dbname):
        return server.roundsman(dbname, "points")

    def locked(dbname):
        with server.connect(dbname, autocommit=False) as other:
            other.execute("SELECT FROM shop.users WHERE id % 100 = 50 FOR UPDATE")
            server.sql(dbname, "CHECKPOINT")
            return server.roundsman(dbname, "points", expect=[10])

    def failing(dbname):
        server.sql(dbname, "UPDATE shop.users SET points = 9223372036854775807"
                   " WHERE id % (SELECT greatest(1, count(*) / 1000) FROM shop.users) = 0",
                   "VACUUM shop.users", "CHECKPOINT")
        return server.roundsman(dbname, "points", expect=[10])

    contenders = {"undisturbed": undisturbed, "locked": locked, "failing": failing}
    with template(server, "shop", users=sizes.users) as shop:
        for number in range(sizes.rounds):
            for contender in rotated(contenders, number):
                with server.copy(shop) as dbname:
                    record = contenders[contender](dbname)
                    if record["rows"] + record["leftovers"] != sizes.users:
                        raise Failure(f"{contender}: {record['rows']} rows done and {record['leftovers']} left over"
                                      f" of {sizes.users}")
                    yield {"part": "stuck", "contender": contender, "round": number + 1, **record}


PARTS = {"points": points, "cancel": cancel, "growth": growth, "wal": wal, "stuck": stuck}
