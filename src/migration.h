/* SPDX-License-Identifier: PostgreSQL */
/*
 * migration: the ledger's schema as one SQL script, made out of the numbered files of sql/ that travel in the binary.
 *
 * The script decides on the server which migrations are due, so that it is the same text whether roundsman sends it or
 * an operator pastes it into psql, today or again. Nothing here connects.
 */
#ifndef RM_MIGRATION_H
#define RM_MIGRATION_H

/* The ledger's version that this program works with. */
int migration_latest(void);

/*
 * One transaction, to be repeated at will: creates the schema, applies the migrations it has not had, and grants its
 * use to `role`. The server refuses it when the role does not exist, or the ledger is newer. The caller frees it.
 */
char *migration_script(const char *schema, const char *role);

/* A table of the ledger, and what ledger.role may do on it: "SELECT, INSERT, UPDATE, DELETE". */
struct migration_table {
    const char *name; /* NULL ends the list */
    const char *privileges;
};
extern const struct migration_table migration_tables[];

#endif
