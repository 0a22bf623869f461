# SPDX-License-Identifier: PostgreSQL
"""The manual pages: what they show works as it stands, and they leave nothing out."""

import collections
import os
import re
import shutil
import subprocess

import pytest

from harness import BINARY, TOP, Shop

PAGES = sorted((TOP / "man").glob("*.[1-9]"))

JOBS = [
    {"name": "daily-points", "kind": "points", "schedule": "0 0 * * *", "amount": 10000, "catch_up": "all"},
    {"name": "restock", "kind": "restock", "schedule": "@every 30m", "add": 10, "up_to": 100},
    {"name": "cancel-unpaid", "kind": "cancel", "schedule": "* * * * *", "older_than": "30m"},
]

# What an example takes for granted, and SQL that makes it so.
BEFORE = {
    "--abandon daily-points":
        "UPDATE roundsman.run SET state = 'failed', finished_at = NULL WHERE id ="
        " (SELECT max(run.id) FROM roundsman.run JOIN roundsman.job ON job.id = job_id WHERE name = 'daily-points')",
}


def examples(page):
    """The literal displays of the section EXAMPLES, as a reader sees them."""
    text = (TOP / "man" / page).read_text()
    section = re.search(r"^\.Sh EXAMPLES\n(.*?)(?=^\.Sh |\Z)", text, re.MULTILINE | re.DOTALL).group(1)
    blocks = re.findall(r"^\.Bd -literal[^\n]*\n(.*?)^\.Ed$", section, re.MULTILINE | re.DOTALL)
    assert blocks
    return [block.replace("\\-", "-").replace("\\&", "").replace("\\e", "\\") for block in blocks]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_mandoc_has_nothing_to_object_to(page):
    mandoc = shutil.which("mandoc")
    if mandoc is None:
        pytest.skip("mandoc is not installed")
    done = subprocess.run([mandoc, "-T", "lint", page], stdout=subprocess.PIPE, text=True, check=False)
    # Whether the pages it refers to are installed is the host's business.
    said = [line for line in done.stdout.splitlines() if "referenced manual not found" not in line]
    assert said == []


def test_the_examples_of_roundsman_8_run_as_they_stand(server, tmp_path):
    server.drop_database("shop")
    server.create_database("shop", "shop_template")
    shop = Shop(server, "shop", tmp_path)
    try:
        run_examples(shop, tmp_path)
    finally:
        shop.close()
        server.drop_database("shop")


def run_examples(shop, directory):
    configuration = shop.configure(jobs=JOBS, defaults={"timezone": "Asia/Seoul"})
    diary = directory / "diary"
    program = directory / "bin" / "roundsman"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n"{BINARY}" -c "{configuration}" "$@"\nstatus=$?\necho "$status $*" >>"{diary}"\nexit $status\n')
    program.chmod(0o755)
    environment = shop.environment({"PATH": f"{program.parent}:{os.environ['PATH']}", "PGHOST": str(shop.server.socket),
                                    "PGPORT": "5432", "PGUSER": "roundsman"})
    for block in examples("roundsman.8"):
        for words, sql in BEFORE.items():
            if words in block:
                shop.sql(sql)
        done = subprocess.run(["sh", "-c", block], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=60, check=False)
        assert done.returncode == 0, (block, done.stdout)
        assert done.stdout, block
    calls = diary.read_text().splitlines()
    assert [call for call in calls if not call.startswith("0 ")] == []
    assert len(calls) == sum(block.count("roundsman -") for block in examples("roundsman.8"))
    # They did what the page says they do.
    made = collections.Counter((run["job"], run["state"]) for run in shop.runs())
    assert made == {("daily-points", "done"): 1, ("daily-points", "abandoned"): 1, ("restock", "done"): 2,
                    ("cancel-unpaid", "done"): 1}
    assert shop.value("SELECT count(*) FROM roundsman.run WHERE due = '2026-01-01T15:00:00Z'") == 1
    assert shop.value("SELECT status FROM shop.orders WHERE id = 42") == "CANCELED"


# What an example of roundsman.conf(5) takes for granted, and SQL that makes it so on the reference schema.
FOUND = {
    "auth_user":
        "CREATE TABLE auth_user (id integer PRIMARY KEY, credit integer NOT NULL, is_active boolean NOT NULL);"
        "CREATE TABLE shop_product (sku varchar(40) PRIMARY KEY, in_stock integer NOT NULL, updated_at timestamp NOT NULL,"
        " discontinued boolean NOT NULL);"
        "CREATE TABLE shop_order (id uuid PRIMARY KEY, state smallint NOT NULL, buyer_id integer, updated_at timestamp NOT NULL);"
        "CREATE TABLE shop_orderline (order_id uuid, product_sku varchar(40) NOT NULL, count integer NOT NULL);"
        "CREATE INDEX ON shop_orderline (order_id);"
        "CREATE INDEX ON shop_order (updated_at, id) WHERE state IN (0, 1, 2);"
        "INSERT INTO auth_user VALUES (1, 70, true), (2, 40, true), (3, 70, false);"
        "INSERT INTO shop_product VALUES ('a', 7, 'now', false), ('b', 7, 'now', true);"
        "INSERT INTO shop_order VALUES (gen_random_uuid(), 1, 1, now() AT TIME ZONE 'UTC' - interval '3 hours'),"
        " (gen_random_uuid(), 0, 2, now() AT TIME ZONE 'UTC' - interval '1 hour');"
        "GRANT SELECT, UPDATE ON auth_user, shop_product, shop_order, shop_orderline TO roundsman",
    "shop.expire_order":
        "CREATE FUNCTION shop.expire_order(bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
}


def test_the_examples_of_roundsman_conf_5_run_as_they_stand(shop, tmp_path):
    """But for where the server is."""
    tried = []
    for number, block in enumerate(examples("roundsman.conf.5")):
        for words, sql in FOUND.items():
            if words in block:
                shop.sql(sql)
        text, places = re.subn(r'conninfo = "[^"]*"', f'conninfo = "{shop.conninfo()}"', block)
        assert places == 1
        path = tmp_path / f"{number}.conf"
        for content in (block, text):  # the last one is what runs
            path.write_text(content)
            path.chmod(0o600)
            result = shop.roundsman("--check", "--offline", config=path)
            assert result.status == 0, (block, result)
        result = shop.roundsman("--check", config=path)
        assert result.status == 0 and result.out.endswith("All is well.\n"), (block, result)
        for job in re.findall(r'name = "([^"]*)"', block):
            result = shop.roundsman("--run-once", job, "--dry-run", config=path)
            assert result.status == 0, (block, result)
            tried.append((job, int(re.search("[0-9]+", result.out)[0])))
    # How many rows each of their jobs would change.
    assert tried == [("daily-points", 1000), ("daily-points", 1000), ("restock", 100), ("cancel-unpaid", 300),
                     ("weekly-fee", 1), ("month-end", 1), ("expire-carts", 1), ("cancel-unpaid", 300)]


def test_roundsman_8_has_every_option_and_no_other(bare_shop):
    page = (TOP / "man" / "roundsman.8").read_text()
    documented = {f"--{name}" for name in re.findall(r"\bFl -([a-z][a-z-]+)", page)}
    result = bare_shop.roundsman("--help")
    assert result.status == 0
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", result.out)) <= documented
    for option in sorted(documented):
        assert "unknown option" not in bare_shop.roundsman(option, "--version").err
    assert "unknown option" in bare_shop.roundsman("--forecast", "--version").err


def test_roundsman_8_has_every_exit_status():
    header = (TOP / "src" / "status.h").read_text()
    statuses = re.findall(r"STATUS_\w+ = (\d+)", header)
    section = (TOP / "man" / "roundsman.8").read_text().split(".Sh EXIT STATUS\n")[1].split(".Sh ")[0]
    assert re.findall(r"^\.It (\d+) Ta", section, re.MULTILINE) == statuses
