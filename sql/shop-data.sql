-- Fills the reference shop: the same rows every time, only the ages are relative to now().
--
--   psql -v users=100000 -v items=1000 -v orders=20000 -f shop-data.sql
--
-- `orders` is the number of PAYING orders older than 30 minutes, which a round of cancel-unpaid finds. Beside them there
-- are, for each ten of them, two fresh PAYING, one fresh and one stale CREATED, one CANCELED and five PAID orders.

\if :{?users}
\else
    \set users 100000
\endif
\if :{?items}
\else
    \set items 1000
\endif
\if :{?orders}
\else
    \set orders 20000
\endif

BEGIN;

INSERT INTO shop.users (name, points, last_modified_at)
SELECT 'user ' || n, 1000 + n % 500, now() - interval '1 day'
FROM generate_series(1, :users) AS n;

-- 41 to 90 in stock: near 100, where a reserve is usually topped up.
INSERT INTO shop.menu_items (name, price, stock, last_modified_at)
SELECT 'item ' || n, 500 + n * 37 % 9500, 41 + n % 50, now() - interval '1 day'
FROM generate_series(1, :items) AS n;

-- One to three lines an order; every tenth order has its first item on a second line. Items and users are spread by
-- multiplying with primes, so that neighboring orders share few of them.
WITH people AS (SELECT id, row_number() OVER (ORDER BY id) - 1 AS position FROM shop.users),
goods AS (SELECT id, row_number() OVER (ORDER BY id) - 1 AS position FROM shop.menu_items),
wanted AS (
    SELECT n, 'PAYING' AS status, interval '31 minutes' + n % 86400 * interval '1 second' AS age
        FROM generate_series(1, :orders) AS n
    UNION ALL
    SELECT n, (ARRAY['PAYING', 'PAYING', 'CREATED', 'CREATED', 'CANCELED', 'PAID', 'PAID', 'PAID', 'PAID', 'PAID'])[1 + n % 10],
           CASE n % 10 WHEN 3 THEN interval '2 hours' WHEN 0 THEN interval '1 second' WHEN 1 THEN interval '1 minute'
                       WHEN 2 THEN interval '1 minute' ELSE interval '1 day' END
        FROM generate_series(0, :orders - 1) AS n
), placed AS (
    INSERT INTO shop.orders (user_id, status, points_spent, last_modified_at)
    SELECT people.id, status, CASE WHEN status <> 'CREATED' AND n % 3 = 0 THEN 10 + n % 90 ELSE 0 END, now() - age
    FROM wanted JOIN people ON people.position = n * 7919 % :users
    RETURNING id
)
INSERT INTO shop.order_items (order_id, item_id, quantity)
SELECT placed.id, goods.id, 1 + (placed.id + line) % 3
FROM placed
CROSS JOIN LATERAL generate_series(0, CASE WHEN placed.id % 10 = 0 THEN 1 ELSE placed.id % 3 END) AS line
JOIN goods ON goods.position = (placed.id * 104729 + CASE WHEN placed.id % 10 = 0 THEN 0 ELSE line END) % :items;

COMMIT;

ANALYZE shop.users, shop.menu_items, shop.orders, shop.order_items;
