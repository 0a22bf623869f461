-- What roundsman is measured against, and the roles that tell whose lock a live transaction waited for.

DO $$
BEGIN
    -- Live traffic. Its waits for locks and its slow commits get into the server's log; nobody else's do.
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'live') THEN
        CREATE ROLE live LOGIN SUPERUSER;
        ALTER ROLE live SET deadlock_timeout = '2ms';
        ALTER ROLE live SET log_min_duration_statement = '2ms';
        CREATE ROLE payments LOGIN SUPERUSER;
        ALTER ROLE payments SET deadlock_timeout = '2ms';
        CREATE ROLE contender LOGIN SUPERUSER;
    END IF;
END $$;

CREATE EXTENSION pg_prewarm;
CREATE SCHEMA bench;

-- Gives back the stock and the points of an order that the caller has locked.
CREATE FUNCTION bench.give_back(the_order bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE shop.menu_items AS i SET stock = i.stock + l.quantity, last_modified_at = now()
        FROM (SELECT item_id, sum(quantity) AS quantity
              FROM shop.order_items WHERE order_id = the_order GROUP BY 1 ORDER BY 1) AS l
        WHERE i.id = l.item_id;
    UPDATE shop.users AS u SET points = u.points + o.points_spent, last_modified_at = now()
        FROM shop.orders AS o WHERE o.id = the_order AND o.points_spent > 0 AND u.id = o.user_id;
END $$;

CREATE FUNCTION bench.cancel_one(the_order bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM shop.orders
        WHERE id = the_order AND status = 'PAYING' AND last_modified_at <= now() - interval '30 minutes'
        FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM bench.give_back(the_order);
    UPDATE shop.orders SET status = 'CANCELED', last_modified_at = now() WHERE id = the_order;
    RETURN true;
END $$;

-- Stops after so many seconds.
CREATE PROCEDURE bench.cancel_all(patience integer) LANGUAGE plpgsql AS $$
DECLARE
    the_order bigint;
    until constant timestamptz := clock_timestamp() + patience * interval '1 second';
BEGIN
    FOR the_order IN SELECT id FROM shop.orders
                     WHERE status = 'PAYING' AND last_modified_at <= now() - interval '30 minutes'
                     ORDER BY last_modified_at, id
    LOOP
        PERFORM bench.cancel_one(the_order);
        COMMIT;
        EXIT WHEN clock_timestamp() > until;
    END LOOP;
END $$;

CREATE PROCEDURE bench.add_points(total bigint) LANGUAGE plpgsql AS $$
BEGIN
    FOR low IN 0 .. total - 1 BY 10000 LOOP
        UPDATE shop.users SET points = points + 1, last_modified_at = now() WHERE id > low AND id <= low + 10000;
        COMMIT;
    END LOOP;
END $$;
