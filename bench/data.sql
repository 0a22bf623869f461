-- The shop that the benchmark measures on: the reference schema, filled so that counts are round and keys have no gaps.
--   psql -v users=1000000 -v items=1000 -v orders=100000 -v others=100000 -f data.sql
--
-- `orders` is the number of stale PAYING orders (ids from 1, the oldest first), `others` that of PAID ones beside them.
-- Every order has two lines, of two items; every third has taken points. Foreign keys hold, but are not checked while
-- loading.

SET session_replication_role = replica;

INSERT INTO shop.users (name, points, last_modified_at)
SELECT 'user ' || n, 1000 + n % 500, now() - interval '1 day' FROM generate_series(1, :users) AS n;

INSERT INTO shop.menu_items (name, price, stock, last_modified_at)
SELECT 'item ' || n, 500 + n * 37 % 9500, 1000000, now() - interval '1 day' FROM generate_series(1, :items) AS n;

INSERT INTO shop.orders (user_id, status, points_spent, last_modified_at)
SELECT 1 + n * 7919 % :users, CASE WHEN n <= :orders THEN 'PAYING' ELSE 'PAID' END,
       CASE n % 3 WHEN 0 THEN 10 + n % 90 ELSE 0 END,
       now() - interval '1 day' - (:orders - n) * interval '50 ms'
FROM generate_series(1::bigint, :orders + :others) AS n;

INSERT INTO shop.order_items (order_id, item_id, quantity)
SELECT n, 1 + (n * 104729 + line * (1 + n % 7)) % :items, 1 + (n + line) % 3
FROM generate_series(1::bigint, :orders + :others) AS n, generate_series(0, 1) AS line;
