/* SPDX-License-Identifier: PostgreSQL */
#include "sql.h"

#include <string.h>

/* As PQescapeIdentifier() does for any encoding that a server can have: it doubles quotation marks, nothing else. */
void sql_quote(struct buf *buf, const char *identifier)
{
    buf_add(buf, "\"");
    for (; *identifier != '\0'; identifier++)
        buf_print(buf, *identifier == '"' ? "\"\"" : "%c", *identifier);
    buf_add(buf, "\"");
}

void sql_quote_name(struct buf *buf, const char *name)
{
    const char *dot = strchr(name, '.');
    AUTO_TEXT schema = dot != NULL ? strndup(name, (size_t)(dot - name)) : mem_copy("public");

    sql_quote(buf, schema);
    buf_add(buf, ".");
    sql_quote(buf, dot != NULL ? dot + 1 : name);
}

void sql_literal(struct buf *buf, const char *value)
{
    if (value == NULL) {
        buf_add(buf, "NULL");
        return;
    }
    buf_add(buf, strchr(value, '\\') != NULL ? " E'" : "'");
    for (; *value != '\0'; value++) {
        if (*value == '\'' || *value == '\\')
            buf_add_bytes(buf, value, 1);
        buf_add_bytes(buf, value, 1);
    }
    buf_add(buf, "'");
}

char *sql_array(const char *const *words)
{
    struct buf array = {0};

    buf_add(&array, "{");
    for (size_t i = 0; words[i] != NULL; i++) {
        buf_add(&array, i == 0 ? "\"" : ",\"");
        for (const char *c = words[i]; *c != '\0'; c++) {
            if (*c == '"' || *c == '\\')
                buf_add(&array, "\\");
            buf_add_bytes(&array, c, 1);
        }
        buf_add(&array, "\"");
    }
    buf_add(&array, "}");
    return buf_take(&array);
}
