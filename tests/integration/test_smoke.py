# SPDX-License-Identifier: PostgreSQL
"""Each job once, from an empty ledger, on a small shop: the sums are exact to the row."""

from harness import wait_until


def test_version(bare_shop):
    result = bare_shop.roundsman("--version")
    assert result.status == 0
    assert result.out.startswith("roundsman ")


def test_install_is_idempotent_and_the_role_can_use_the_ledger(bare_shop):
    bare_shop.install()
    bare_shop.install()
    with bare_shop.connect("roundsman") as connection:
        assert connection.execute("SELECT count(*) FROM roundsman.run").fetchone() == (0,)


def test_install_dry_run_changes_nothing(bare_shop):
    result = bare_shop.roundsman("--install", "--dry-run", "-d", bare_shop.conninfo("postgres"))
    assert result.status == 0
    assert "CREATE TABLE" in result.out
    assert bare_shop.value("SELECT to_regnamespace('roundsman') IS NULL")


def test_check_finds_nothing_wrong_with_the_reference_shop(shop):
    result = shop.roundsman("--check")
    assert result.status == 0, result


def test_points(shop):
    expected = shop.books().with_points(10000)
    result = shop.roundsman("--run-once", "daily-points")
    assert result.status == 0, result
    assert shop.books() == expected, shop.books().explain(expected)
    (run,) = shop.runs()
    assert (run["job"], run["due"], run["trigger"], run["state"]) == ("daily-points", None, "manual", "done")
    assert run["rows_done"] == 1000
    assert sum(lane["rows_done"] for lane in shop.lanes()) in (0, 1000)


def test_restock(shop):
    before = shop.books()
    expected = before.with_restock(10, up_to=100)
    result = shop.roundsman("--run-once", "restock")
    assert result.status == 0, result
    assert shop.books() == expected, shop.books().explain(expected)
    (run,) = shop.runs()
    assert run["state"] == "done"
    assert run["rows_done"] == sum(1 for item in before.stock if before.stock[item] != expected.stock[item])


def test_cancel(shop):
    stale = shop.stale_orders()
    assert len(stale) == 300
    expected = shop.books().with_canceled(shop, stale)
    result = shop.roundsman("--run-once", "cancel-unpaid")
    assert result.status == 0, result
    assert shop.books() == expected, shop.books().explain(expected)
    (run,) = shop.runs()
    assert (run["state"], run["rows_done"]) == ("done", 300)
    # Nothing is stale any more: another round finds nothing.
    result = shop.roundsman("--run-once", "cancel-unpaid")
    assert result.status == 0, result
    assert shop.books() == expected, shop.books().explain(expected)


def test_points_and_cancel_under_live_traffic(shop):
    shop.sql("UPDATE shop.menu_items SET stock = 100000")  # no item is sold out meanwhile
    before = shop.books()
    stale = shop.stale_orders()
    with shop.traffic() as traffic:
        for job in ("daily-points", "cancel-unpaid"):
            result = shop.roundsman("--run-once", job)
            assert result.status == 0, result
        done = traffic.done
        wait_until(lambda: traffic.done > done + 10, what="live traffic goes on")
        traffic.stop()
    expected = before.with_points(10000).with_canceled(shop, stale).with_taken(traffic.taken)
    assert shop.books() == expected, shop.books().explain(expected)


def test_each_job_in_a_daemon(shop):
    """Every second, so that each makes a round soon; then the sums say how many it made, and the ledger agrees."""
    before = shop.books()
    stale = shop.stale_orders()
    shop.configure(jobs=[
        {"name": "points", "kind": "points", "schedule": "* * * * * *", "amount": 7, "catch_up": "all"},
        {"name": "restock", "kind": "restock", "schedule": "@every 1s", "add": 1, "catch_up": "all"},
        {"name": "cancel", "kind": "cancel", "schedule": "* * * * * *"},
    ])
    with shop.start() as daemon:
        wait_until(lambda: {run["job"] for run in shop.runs() if run["state"] == "done"} == {"points", "restock", "cancel"},
                   what="a round of each job")
        assert daemon.stop() == 0, daemon.log()
    runs = shop.runs()
    assert all(run["due"] is not None and run["trigger"] in ("schedule", "catch_up") for run in runs)
    points = sum(run["rows_done"] for run in shop.runs("points"))
    restocked = sum(run["rows_done"] for run in shop.runs("restock"))
    after = shop.books()
    expected = before.with_canceled(shop, stale)
    assert after.status == expected.status
    assert sum(after.points.values()) == sum(expected.points.values()) + 7 * points
    assert sum(after.stock.values()) == sum(expected.stock.values()) + restocked
