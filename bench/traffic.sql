-- Live traffic for pgbench: a user spends a point on an order for one item. What it took can be read off the orders and
-- their lines. Locks in the order that the shop keeps to: the order, the item, the user.
--   pgbench -n -f traffic.sql -D users=100000 -D items=1000
\set user random(1, :users)
\set item random(1, :items)
BEGIN;
INSERT INTO shop.orders (user_id, status, points_spent) VALUES (:user, 'PAYING', 1) RETURNING id AS order \gset
WITH taken AS (
    UPDATE shop.menu_items SET stock = stock - 1, last_modified_at = now() WHERE id = :item AND stock > 0 RETURNING id
)
INSERT INTO shop.order_items (order_id, item_id, quantity) SELECT :order, id, 1 FROM taken;
UPDATE shop.users SET points = points - 1, last_modified_at = now() WHERE id = :user;
COMMIT;
