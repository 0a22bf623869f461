-- A role for the daemon that can do its three jobs on the reference shop, and nothing else there.
--
-- Run it with psql in the shop's database, as the owner of the shop. It can be run again. The role has no password here:
-- let pg_hba.conf know it by its operating-system user (peer), or give it one with \password roundsman and put that into
-- a password file (passfile=/etc/roundsman/pgpass in database.conninfo). Its rights on the ledger are granted by
-- roundsman --install.
--
-- Columns are granted one by one. A row lock (FOR NO KEY UPDATE) needs UPDATE on some column of the table, which every
-- table below but order_items has; the lines of an order are only read. A `where` in the configuration needs SELECT on
-- the columns it names, a `call` needs EXECUTE on its function and what that function needs.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'roundsman') THEN
        CREATE ROLE roundsman LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
    END IF;
END $$;

GRANT CONNECT ON DATABASE :"DBNAME" TO roundsman;
GRANT USAGE ON SCHEMA shop TO roundsman;

-- points, and cancel, which gives points back. (xmax tells which rows others may have locked, and how far a batch came that failed.)
GRANT SELECT (id, points, xmax), UPDATE (points, last_modified_at) ON shop.users TO roundsman;

-- restock, and cancel, which gives stock back
GRANT SELECT (id, stock, xmax), UPDATE (stock, last_modified_at) ON shop.menu_items TO roundsman;

-- cancel
GRANT SELECT (id, user_id, status, points_spent, last_modified_at), UPDATE (status, last_modified_at)
    ON shop.orders TO roundsman;
GRANT SELECT (order_id, item_id, quantity) ON shop.order_items TO roundsman;
