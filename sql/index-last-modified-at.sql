-- The indexes that canceling unpaid orders needs, made without blocking a live shop.
--
-- Run it with psql, outside of a transaction (not with psql -1): CREATE INDEX CONCURRENTLY refuses to be in one. If it is
-- interrupted, it leaves an INVALID index behind, which IF NOT EXISTS takes for a good one: roundsman --check tells;
-- DROP INDEX CONCURRENTLY it and run this again.

-- The unfinished orders by age. It holds only these, so it stays small, and the newest paid order costs it nothing.
CREATE INDEX CONCURRENTLY IF NOT EXISTS orders_unfinished
    ON shop.orders (last_modified_at, id)
    WHERE status IN ('CREATED', 'PAYING');

-- The lines of one order. (PostgreSQL makes no index for the referencing side of a foreign key.)
CREATE INDEX CONCURRENTLY IF NOT EXISTS order_items_order_id
    ON shop.order_items (order_id);
