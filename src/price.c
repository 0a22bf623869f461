/* SPDX-License-Identifier: PostgreSQL */
#include "price.h"

#include <stdio.h>

#include "bulk_sql.h"
#include "examined.h"
#include "sql.h"

/*
 * Bytes of WAL for each row, as measured over whole rounds, pruning and the ledger included. A new version on the same
 * page is logged as its difference, on another page whole.
 */
#define WAL_SAME_PAGE 90
#define WAL_OTHER_PAGE 105 /* and the row itself */
#define WAL_INDEX 70       /* for each index of the table, unless the update is HOT */

#define PAGE_HEADER 24
#define LINE_POINTER 4
#define TUPLE_HEADER 24 /* the smallest row; so many rows a page can have pointers for */

#define HOT_ENOUGH 0.8 /* below it there is advice; the few rows that find no room make some, and it rises by itself */
#define FEW_PAGES 8    /* so few are always in memory, and what a round writes to them is nothing: no advice */
static const int fillfactors[] = {50, 45, 40, 35, 30, 25, 20}; /* to advise, the best for reading first */

/* ---- The model: what a page has room for ---- */

/* A table or partition. Sizes are in bytes. */
struct heap {
    const char *name;
    int64_t rows; /* below 0: never counted */
    int64_t pages, page_size, fillfactor, width, indexes, index_pages, updates, hot_updates;
    int64_t file_pages; /* now, also where it was never counted */
    bool indexed;       /* an index has a changed column */
};

/* How many rows inserts put on a page. */
static double rows_filled(const struct heap *heap, int64_t fillfactor)
{
    int64_t kept_free = heap->page_size * (100 - fillfactor) / 100;
    int64_t rows = (heap->page_size - PAGE_HEADER - kept_free) / (heap->width + LINE_POINTER);

    return rows < 1 ? 1 : (double)rows;
}

static double limited(double value, double most)
{
    return value < 0 ? 0 : value > most ? most : value;
}

/*
 * The share of a page's rows whose new versions fit on it in one round. Pruning comes after the round: a page is
 * changed in one or two batches. What it leaves of an old version is a pointer, which the round before left, too.
 */
static double share_fitting(const struct heap *heap, double rows)
{
    int64_t usable = heap->page_size - PAGE_HEADER;
    double room, pointers;

    if (heap->rows >= 0)
        rows = limited(rows, (double)heap->rows);
    if (rows <= 0)
        return 1;
    room = ((double)usable - rows * (double)(heap->width + 2 * LINE_POINTER)) / (double)(heap->width + LINE_POINTER);
    room = (double)(int64_t)limited(room, rows + 1);
    pointers = (double)(usable / (TUPLE_HEADER + LINE_POINTER)) - 2 * rows;
    return limited(room < pointers ? room : pointers, rows) / rows;
}

static double share_by_fillfactor(const struct heap *heap, int64_t fillfactor)
{
    return share_fitting(heap, rows_filled(heap, fillfactor));
}

/* How many rows the pages have on average, full ones and those that rounds have emptied; 0: not counted. */
static double rows_counted(const struct heap *heap)
{
    return heap->rows > 0 && heap->pages > 0 ? (double)heap->rows / (double)heap->pages : 0;
}

/* Of the next round: pages may be fuller than the fillfactor says, when it was set after they were filled. */
static double share_now(const struct heap *heap)
{
    double by_fillfactor = rows_filled(heap, heap->fillfactor), counted = rows_counted(heap);

    return share_fitting(heap, counted > by_fillfactor ? counted : by_fillfactor);
}

static double wal_for_row(const struct heap *heap)
{
    double share = share_now(heap), indexes = (double)(heap->indexes * WAL_INDEX);
    double same = WAL_SAME_PAGE + (heap->indexed ? indexes : 0), other = WAL_OTHER_PAGE + (double)heap->width + indexes;

    return share * same + (1 - share) * other;
}

/* The first change of a page after a checkpoint logs all of it. */
static double wal_of_pages(const struct heap *heap)
{
    double indexes = heap->indexed ? 1 : 1 - share_now(heap);

    return (double)heap->page_size * ((double)heap->pages + indexes * (double)heap->index_pages);
}

/* ---- What the catalog says ---- */

/* SQL: index i has attribute a in its keys, INCLUDE, an expression or its predicate, so that no update is HOT. */
#define INDEX_HAS_COLUMN                                                                                               \
    "(i.indislive AND (a.attnum = ANY (i.indkey::int2[])"                                                              \
    " OR EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid"            \
    "            AND d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid AND d.refobjsubid = a.attnum))"   \
    " AND NOT (current_setting('server_version_num')::integer >= 160000"                                               \
    "          AND EXISTS (SELECT FROM pg_class b JOIN pg_am m ON m.oid = b.relam"                                     \
    "                      WHERE b.oid = i.indexrelid AND m.amname = 'brin')))"

/* $1: the table, quoted; its relations, of which a partitioned one has many. */
#define TREE                                                                                                           \
    "WITH target AS (SELECT c.oid FROM parse_ident($1) AS part JOIN pg_namespace n ON n.nspname = part[1]"             \
    "                  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = part[2]"                              \
    "                 WHERE c.relkind IN ('r', 'p')),"                                                                 \
    " tree AS (SELECT relid::oid AS oid FROM target, pg_partition_tree(target.oid) UNION SELECT oid FROM target) "

/*
 * $2: the changed columns. A column that was never analyzed, or that the role may not read, has no statistics: it has
 * 1 to 32 bytes then, which is what the planner takes.
 */
static const char heaps_sql[] = TREE
    "SELECT format('%I.%I', n.nspname, c.relname), c.reltuples::bigint, c.relpages,"
    "       current_setting('block_size')::integer,"
    "       coalesce((SELECT option_value::integer FROM pg_options_to_table(c.reloptions)"
    "                  WHERE option_name = 'fillfactor'), 100),"
    "       width.least, width.most,"
    "       (SELECT count(*) FROM pg_index i WHERE i.indrelid = c.oid AND i.indisready),"
    "       (SELECT coalesce(sum(x.relpages), 0) FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid"
    "         WHERE i.indrelid = c.oid),"
    "       EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = ANY ($2::text[])"
    "                WHERE i.indrelid = c.oid AND " INDEX_HAS_COLUMN "),"
    "       pg_stat_get_tuples_updated(c.oid), pg_stat_get_tuples_hot_updated(c.oid),"
    "       coalesce(pg_relation_size(c.oid), 0) / current_setting('block_size')::integer"
    "  FROM tree JOIN pg_class c ON c.oid = tree.oid AND c.relkind = 'r' JOIN pg_namespace n ON n.oid = c.relnamespace"
    " CROSS JOIN LATERAL ("
    "       SELECT sum(CASE WHEN a.attlen > 0 THEN a.attlen ELSE coalesce(s.avg_width, 1) END) AS least,"
    "              sum(CASE WHEN a.attlen > 0 THEN a.attlen ELSE coalesce(s.avg_width, 32) END) AS most"
    "         FROM pg_attribute a LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname"
    "                                                 AND s.attname = a.attname AND NOT s.inherited"
    "        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS width"
    " ORDER BY c.oid";
/* clang-format off */
enum {
    NAME, ROWS, PAGES, PAGE_SIZE, FILLFACTOR, LEAST, MOST, INDEXES, INDEX_PAGES, INDEXED, UPDATES,
    HOT_UPDATES, FILE_PAGES
};
/* clang-format on */

/* The size of a row: where it is not known, as if the pages were filled as they should be. */
static int64_t width_between(const struct heap *heap, int64_t least, int64_t most)
{
    int64_t space = heap->page_size * heap->fillfactor / 100 - PAGE_HEADER;
    int64_t width;

    least = (TUPLE_HEADER + least + 7) / 8 * 8;
    most = (TUPLE_HEADER + most + 7) / 8 * 8;
    if (heap->rows <= 0 || heap->pages <= 0)
        return most;
    width = (space * heap->pages / heap->rows - LINE_POINTER + 4) / 8 * 8; /* rows begin at multiples of 8 */
    return width > most ? most : width < least ? least : width;
}

static struct heap heap_of(const struct rows *rows, int row)
{
    struct heap heap = {
        .name = rows_text(rows, row, NAME),
        .rows = rows_integer(rows, row, ROWS),
        .pages = rows_integer(rows, row, PAGES),
        .page_size = rows_integer(rows, row, PAGE_SIZE),
        .fillfactor = rows_integer(rows, row, FILLFACTOR),
        .indexes = rows_integer(rows, row, INDEXES),
        .index_pages = rows_integer(rows, row, INDEX_PAGES),
        .indexed = rows_boolean(rows, row, INDEXED),
        .updates = rows_integer(rows, row, UPDATES),
        .hot_updates = rows_integer(rows, row, HOT_UPDATES),
        .file_pages = rows_integer(rows, row, FILE_PAGES),
    };

    heap.width = width_between(&heap, rows_integer(rows, row, LEAST), rows_integer(rows, row, MOST));
    return heap;
}

/* $3: the column that is the work itself; an index without it is on `touched` alone. */
static const char indexes_sql[] = TREE
    "SELECT " EXAMINED_INDEX ", string_agg(quote_ident(a.attname), ' and ' ORDER BY a.attnum),"
    "       CASE WHEN bool_or(a.attname = $3) OR i.indisunique THEN NULL"
    "            WHEN x.relkind = 'i' THEN format('DROP INDEX CONCURRENTLY %s; -- if nothing needs it (scans: %s)',"
    "                                             " EXAMINED_INDEX ", pg_stat_get_numscans(x.oid))"
    "            ELSE format('DROP INDEX %s; -- if nothing needs it', " EXAMINED_INDEX ") END"
    "  FROM tree JOIN pg_index i ON i.indrelid = tree.oid"
    "  JOIN pg_class x ON x.oid = i.indexrelid AND NOT x.relispartition"
    "  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attname = ANY ($2::text[])"
    " WHERE " INDEX_HAS_COLUMN " GROUP BY x.oid, x.relkind, i.indexrelid, i.indisunique ORDER BY 1";

static const char marks_sql[] =
    TREE "SELECT format('GRANT SELECT (xmax) ON %I.%I TO %I;', n.nspname, c.relname, current_user)"
         "  FROM target JOIN pg_class c ON c.oid = target.oid JOIN pg_namespace n ON n.oid = c.relnamespace"
         " WHERE NOT has_column_privilege(c.oid, 'xmax', 'SELECT')";

/* ---- Advice ---- */

static void advise_fillfactor(const struct heap *heap, struct problems *advice)
{
    if (heap->indexed || heap->file_pages < FEW_PAGES || share_by_fillfactor(heap, heap->fillfactor) >= HOT_ENOUGH)
        return;
    if (heap->rows > 0 && heap->updates >= heap->rows && share_fitting(heap, rows_counted(heap)) >= HOT_ENOUGH &&
        (double)heap->hot_updates >= HOT_ENOUGH * (double)heap->updates)
        return; /* rounds have spread the rows, and it was not rewritten since */
    for (size_t i = 0; i < ELEMENTS(fillfactors); i++) {
        AUTO_TEXT remedy = NULL;

        if (fillfactors[i] >= heap->fillfactor || share_by_fillfactor(heap, fillfactors[i]) < HOT_ENOUGH)
            continue;
        remedy = mem_print("ALTER TABLE %s SET (fillfactor = %d);", heap->name, fillfactors[i]);
        problems_add(
            advice, true, remedy,
            "table %s: fillfactor %lld leaves no room for the new rows of a round on their pages. With %d the "
            "table takes up to %.1f times the space, to which rounds blow it up anyway; pages follow as rounds "
            "write them, or at once by VACUUM FULL, which locks the table",
            heap->name, (long long)heap->fillfactor, fillfactors[i],
            rows_filled(heap, heap->fillfactor) / rows_filled(heap, fillfactors[i]));
        return;
    }
}

static void advise_indexes(const char *table, const struct rows *indexes, struct problems *advice)
{
    for (int i = 0; i < rows_count(indexes); i++)
        problems_add(advice, true, rows_text(indexes, i, 2),
                     "table %s: index %s has %s, so no update can be HOT: each writes to all indexes, and a new row "
                     "waits for vacuum in each",
                     table, rows_text(indexes, i, 0), rows_text(indexes, i, 1));
}

/* A right that nobody thinks of, where columns are granted one by one. */
static void advise_marks(const char *table, const struct rows *grants, struct problems *advice)
{
    for (int i = 0; i < rows_count(grants); i++)
        problems_add(advice, true, rows_text(grants, i, 0),
                     "table %s: the role may not read xmax, which tells locked rows from free ones, and how far a "
                     "batch had come that failed: without it each such row holds up the rest of a run longer",
                     table);
}

/* ---- A job's table ---- */

static void print_price(const char *table, const struct rows *rows, const struct rows *indexes)
{
    double count = 0, weight = 0, hot = 0, wal = 0, pages = 0, bytes = 0, updates = 0, hot_updates = 0;
    int64_t least = 100, most = 0;

    for (int i = 0; i < rows_count(rows); i++) {
        struct heap heap = heap_of(rows, i);
        double share = heap.rows > 0 ? (double)heap.rows : 1e-6; /* where all are empty, all count the same */

        count += heap.rows > 0 ? (double)heap.rows : 0;
        weight += share;
        hot += heap.indexed ? 0 : share * share_now(&heap);
        wal += share * wal_for_row(&heap);
        bytes += share * (double)heap.width;
        pages += wal_of_pages(&heap);
        updates += (double)heap.updates;
        hot_updates += (double)heap.hot_updates;
        least = heap.fillfactor < least ? heap.fillfactor : least;
        most = heap.fillfactor > most ? heap.fillfactor : most;
    }
    if (weight <= 0)
        return;
    printf("price: %s: about %.0f row%s of %.0f bytes, fillfactor %lld", table, count,
           count >= 0.5 && count < 1.5 ? "" : "s", bytes / weight, (long long)least);
    if (most > least)
        printf(" to %lld", (long long)most);
    for (int i = 0; i < rows_count(indexes); i++)
        printf("%s%s", i == 0 ? "; indexes that a change touches: " : ", ", rows_text(indexes, i, 0));
    printf("%s\n", rows_count(indexes) == 0 ? "; what changes is in no index" : "");
    printf("price: estimates: %.0f %% of updates HOT, %.0f bytes of WAL a row", 100 * hot / weight, wal / weight);
    if (count > 0)
        printf(", up to %.0f more after a checkpoint", pages / count);
    if (updates > 0)
        printf("; so far %.0f %% of %.0f updates were HOT", 100 * hot_updates / updates, updates);
    printf("\n");
}

int price_job(struct db *db, const struct configuration *configuration, const struct job *job, struct problems *advice)
{
    struct task task = {.kind = job->kind, .settings = job->settings, .shop = configuration->shop};
    struct change change;
    AUTO_BUF table = {0};
    AUTO_TEXT columns = NULL;
    AUTO_ROWS heaps = NULL;
    AUTO_ROWS indexes = NULL;
    AUTO_ROWS grants = NULL;
    int r;

    if (job->kind->change == NULL)
        return 0;
    change = bulk_change(&task, 0);
    sql_quote_name(&table, change.table);
    columns = sql_array((const char *const[]){change.column, change.touched, NULL});
    r = db_query(db, heaps_sql, 2, (const char *const[]){table.text, columns}, &heaps);
    if (r == 0)
        r = db_query(db, indexes_sql, 3, (const char *const[]){table.text, columns, change.column}, &indexes);
    if (r == 0)
        r = db_query(db, marks_sql, 1, (const char *const[]){table.text}, &grants);
    if (r == 0) {
        print_price(change.table, heaps, indexes);
        advise_indexes(change.table, indexes, advice);
        advise_marks(change.table, grants, advice);
    }
    for (int i = 0; r == 0 && i < rows_count(heaps); i++) {
        struct heap heap = heap_of(heaps, i);

        advise_fillfactor(&heap, advice);
    }
    bulk_change_free(&change);
    return r;
}
