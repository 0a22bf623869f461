/* SPDX-License-Identifier: PostgreSQL */
#include "install.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "db.h"
#include "ledger.h"
#include "log.h"
#include "migration.h"
#include "sql.h"
#include "status.h"

/* The version that the schema is at, 0 when there is no ledger yet. */
static int read_version(struct db *db, const char *schema, int *ret)
{
    AUTO_BUF quoted = {0};
    int r;

    sql_quote(&quoted, schema);
    r = ledger_version(&(struct ledger){.db = db, .schema = quoted.text}, ret);
    if (r != -ENOENT)
        return r;
    *ret = 0;
    return 0;
}

/* Says why it failed, and what to do about it. */
static void explain(const struct db *db, const struct configuration *configuration)
{
    static const char own_schema[] = "give the ledger a schema of its own: ledger.schema in the file";
    const struct db_error *error = db_error(db);
    const struct {
        const char *sqlstate, *remedy;
    } remedies[] = {
        {"42501", "run it as a role that may create schemas in this database: roundsman --install -d 'CONNINFO'"},
        {"55000", "install a newer roundsman"},
        {"42P07", own_schema},
        {"42703", own_schema}, /* there is a table migration, and it has no column version */
        {"25006", "this server takes no writes (a standby?): run it against the primary"},
    };

    log_say(LOG_ERR, "the ledger in schema %s was not installed, and nothing was changed: %s",
            configuration->ledger_schema, error->message);
    if (strcmp(error->sqlstate, "42704") == 0) {
        AUTO_BUF role = {0};

        sql_quote(&role, configuration->ledger_role);
        log_say(LOG_ERR, "the role that runs roundsman is ledger.role in %s; to make it: CREATE ROLE %s LOGIN;",
                configuration->path, role.text);
    }
    for (size_t i = 0; i < ELEMENTS(remedies); i++)
        if (strcmp(error->sqlstate, remedies[i].sqlstate) == 0)
            log_say(LOG_ERR, "%s", remedies[i].remedy);
}

static int install(struct db *db, const struct configuration *configuration, const char *script)
{
    const char *schema = configuration->ledger_schema, *role = configuration->ledger_role;
    int before, latest = migration_latest();

    if (read_version(db, schema, &before) < 0 || db_script(db, script) < 0) {
        explain(db, configuration);
        return STATUS_FAILED;
    }
    if (before == latest)
        printf("The ledger in schema %s is at version %d: nothing to do. Its use is granted to %s.\n", schema, latest,
               role);
    else if (before == 0)
        printf("Created the ledger in schema %s at version %d, and granted its use to %s.\n", schema, latest, role);
    else
        printf("Upgraded the ledger in schema %s from version %d to %d, and granted its use to %s.\n", schema, before,
               latest, role);
    return STATUS_DONE;
}

int install_run(const struct configuration *configuration, const char *conninfo, bool dry_run)
{
    AUTO_TEXT script = migration_script(configuration->ledger_schema, configuration->ledger_role);
    AUTO_TEXT error = NULL;
    struct db_options options = {
        .conninfo = conninfo != NULL ? conninfo : configuration->conninfo,
        .purpose = "install",
        .search_path = "",
    };
    struct db *db;
    int status;

    if (dry_run) {
        fputs(script, stdout);
        return STATUS_DONE;
    }
    if (db_connect(&options, &db, &error) < 0) {
        log_say(LOG_ERR, "%s", error);
        return STATUS_FAILED;
    }
    status = install(db, configuration, script);
    db_close(db);
    return status;
}
