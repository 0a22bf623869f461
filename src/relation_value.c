/* SPDX-License-Identifier: PostgreSQL */
#include "relation_value.h"

#include <string.h>

/* The others hold whatever a setting can be. */
static const struct {
    const char *type, *name;
    int64_t least, most;
} ranges[] = {
    {"int2", "smallint", INT16_MIN, INT16_MAX},
    {"int4", "integer", INT32_MIN, INT32_MAX},
};

/* Every integer among the settings of a kind is an amount or a mark of the column. */
void relation_values_examine(struct examined *examined, const char *column, const char *type)
{
    const struct settings *settings = examined->need->settings;

    for (size_t i = 0; i < settings->count; i++)
        for (size_t k = 0; k < ELEMENTS(ranges); k++) {
            const struct setting *setting = &settings->list[i];
            bool below = setting->integer < ranges[k].least;
            AUTO_TEXT remedy = NULL;

            if (setting->spec->type != SETTING_INTEGER || strcmp(ranges[k].type, type) != 0 ||
                (!below && setting->integer <= ranges[k].most))
                continue;
            remedy = mem_print(
                "ALTER TABLE %s ALTER COLUMN %s TYPE bigint; -- this rewrites the table; or another %s in the file",
                examined->table, column, setting->spec->name);
            examined_refuse(examined, remedy, "%s = %lld is %s than column %s can hold, whose type %s %s %lld",
                            setting->spec->name, (long long)setting->integer, below ? "less" : "more", column,
                            ranges[k].name, below ? "begins at" : "ends at",
                            (long long)(below ? ranges[k].least : ranges[k].most));
        }
}
