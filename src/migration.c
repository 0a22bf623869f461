/* SPDX-License-Identifier: PostgreSQL */
#include "migration.h"

#include "db.h"
#include "mem.h"
#include "migrations.h"
#include "sql.h"

#define ALL "SELECT, INSERT, UPDATE, DELETE"

/* By name, and not ON ALL TABLES: an operator may keep the ledger in a schema that holds other things, too. */
const struct migration_table migration_tables[] = {
    {"migration", "SELECT"}, {"job", ALL}, {"run", ALL}, {"lane", ALL}, {"leftover", ALL}, {"skip", ALL}, {0},
};

int migration_latest(void)
{
    return migrations[ELEMENTS(migrations) - 1].version;
}

/* Somebody else's tables with our names are told before anything is made: else one of ours would only "exist". */
static void refuse_foreign_schema(struct buf *sql, const char *schema_text)
{
    buf_add(sql, "DO $check$\nDECLARE\n    foreign_table text;\nBEGIN\n"
                 "    SELECT relname INTO foreign_table FROM pg_catalog.pg_class\n"
                 "     WHERE relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = ");
    buf_print(sql, "%s)\n       AND relname IN (", schema_text);
    for (const struct migration_table *table = migration_tables; table->name != NULL; table++)
        buf_print(sql, "%s'%s'", table == migration_tables ? "" : ", ", table->name);
    buf_print(sql,
              ")\n"
              "       AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute JOIN pg_catalog.pg_class c\n"
              "                           ON c.oid = attrelid\n"
              "                        WHERE c.relnamespace = pg_class.relnamespace AND c.relname = 'migration'\n"
              "                          AND attname = 'applied_at')\n"
              "     ORDER BY relname LIMIT 1;\n"
              "    IF FOUND THEN\n"
              "        RAISE duplicate_table USING MESSAGE = pg_catalog.format('schema %%s has a table %%s that is '\n"
              "            'not the ledger''s', %s, foreign_table);\n"
              "    END IF;\n"
              "END $check$;\n\n",
              schema_text);
}

static void begin(struct buf *sql, const char *schema, const char *role)
{
    AUTO_BUF name = {0}, schema_text = {0}, role_text = {0};

    sql_quote(&name, schema);
    sql_literal(&schema_text, schema);
    sql_literal(&role_text, role);
    buf_add(sql,
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;\n"
            "SET LOCAL client_min_messages = warning;\n\n"
            "DO $check$\nBEGIN\n"
            "    -- One at a time.\n"
            "    PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('roundsman --install', 0));\n");
    buf_print(sql,
              "    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = %s) THEN\n"
              "        RAISE undefined_object USING MESSAGE = 'there is no role ' || pg_catalog.quote_ident(%s);\n"
              "    END IF;\n",
              role_text.text, role_text.text);
    /* Not IF NOT EXISTS, which wants the right to create one even where it is there. */
    buf_print(sql,
              "    IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = %s) THEN\n"
              "        CREATE SCHEMA %s;\n"
              "    END IF;\n"
              "END $check$;\n\n"
              "SET LOCAL search_path = %s, pg_temp;\n\n",
              schema_text.text, name.text, name.text);
    refuse_foreign_schema(sql, schema_text.text);
    buf_print(sql,
              "CREATE TABLE IF NOT EXISTS migration (\n"
              "    version    integer     PRIMARY KEY,\n"
              "    applied_at timestamptz NOT NULL DEFAULT now()\n"
              ");\n"
              "COMMENT ON TABLE migration IS 'a step in which this schema was made';\n\n"
              "DO $check$\nBEGIN\n"
              "    IF EXISTS (SELECT FROM migration WHERE version > %d) THEN\n"
              "        RAISE object_not_in_prerequisite_state USING MESSAGE = pg_catalog.format('the ledger is at "
              "version %%s, and "
              "this roundsman knows it up to %d', (SELECT max(version) FROM migration));\n"
              "    END IF;\n"
              "END $check$;\n\n",
              migration_latest(), migration_latest());
}

char *migration_script(const char *schema, const char *role)
{
    struct buf sql = {0};
    AUTO_BUF schema_name = {0}, role_name = {0};

    sql_quote(&schema_name, schema);
    sql_quote(&role_name, role);
    begin(&sql, schema, role);
    for (size_t i = 0; i < ELEMENTS(migrations); i++)
        buf_print(&sql,
                  "DO $outer$\nBEGIN\n"
                  "IF NOT EXISTS (SELECT FROM migration WHERE version = %d) THEN\n"
                  "EXECUTE $migration$\n%s$migration$;\n"
                  "INSERT INTO migration (version) VALUES (%d);\n"
                  "END IF;\n"
                  "END $outer$;\n\n",
                  migrations[i].version, migrations[i].sql, migrations[i].version);
    buf_print(&sql, "GRANT USAGE ON SCHEMA %s TO %s;\n", schema_name.text, role_name.text);
    for (const struct migration_table *table = migration_tables; table->name != NULL; table++)
        buf_print(&sql, "GRANT %s ON %s TO %s;\n", table->privileges, table->name, role_name.text);
    buf_print(&sql, "GRANT EXECUTE ON FUNCTION refuse(text, text) TO %s;\n\nCOMMIT;\n", role_name.text);
    return buf_take(&sql);
}
