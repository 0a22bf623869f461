# SPDX-License-Identifier: PostgreSQL
"""Fixtures; what they give is described in harness.py."""

import itertools

import pytest

import harness

NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def server():
    harness.sweep()
    server = harness.new_server()
    try:
        server.create_template()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def installed(server, tmp_path_factory):
    """A second template: the shop with the ledger, made by the program itself."""
    server.create_database("installed_template", "shop_template")
    shop = harness.Shop(server, "installed_template", tmp_path_factory.mktemp("install"))
    shop.install()
    shop.close()
    return "installed_template"


def fresh(server, template, directory):
    name = f"shop{next(NUMBERS)}"
    server.create_database(name, template)
    return harness.Shop(server, name, directory)


@pytest.fixture
def bare_shop(server, tmp_path):
    shop = fresh(server, "shop_template", tmp_path)
    yield shop
    shop.close()
    server.drop_database(shop.name)


@pytest.fixture
def shop(server, installed, tmp_path):
    shop = fresh(server, installed, tmp_path)
    yield shop
    shop.close()
    server.drop_database(shop.name)


@pytest.fixture
def own_shop(tmp_path):
    server = harness.new_server(f"own{next(NUMBERS)}")
    try:
        shop = harness.Shop(server, server.create_template("shop"), tmp_path)
        shop.install()
        yield shop
        shop.close()
    finally:
        server.remove()
