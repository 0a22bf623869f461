/* SPDX-License-Identifier: PostgreSQL */
/* install: --install. Creates or upgrades the ledger's schema out of the numbered migrations of sql/. */
#ifndef RM_INSTALL_H
#define RM_INSTALL_H

#include "configuration.h"

/*
 * In one transaction, idempotently, as a role that may (`conninfo` NULL: the configured connection): creates the
 * schema, applies the migrations it has not had, and grants its use to ledger.role. `dry_run` prints the SQL instead
 * of sending it, and connects to nothing. Returns STATUS_DONE or STATUS_FAILED.
 */
int install_run(const struct configuration *, const char *conninfo, bool dry_run);

#endif
