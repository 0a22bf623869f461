/* SPDX-License-Identifier: PostgreSQL */
/*
 * price: what a round costs the server, as --check estimates it out of the catalog: how many updates stay on their page
 * (HOT) and what they write ahead; which indexes and fill factors make it dearer than it needs to be.
 *
 * Advice is no problem: the work can be done all the same. Nothing here reads a row of the shop.
 */
#ifndef RM_PRICE_H
#define RM_PRICE_H

#include "configuration.h"
#include "db.h"
#include "problem.h"

/*
 * Prints "price:" lines for a job of a bulk kind to standard output, and adds to *advice. Says nothing of other kinds, nor
 * of a table that is not there. Returns 0, or as db_query().
 */
int price_job(struct db *, const struct configuration *, const struct job *, struct problems *advice);

#endif
