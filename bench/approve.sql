-- Payments that arrive late: they approve orders which are just being canceled.
--   pgbench -n -f approve.sql -D candidates=100000
\set order random(1, :candidates)
UPDATE shop.orders SET status = 'PAID', last_modified_at = now() WHERE id = :order AND status = 'PAYING';
