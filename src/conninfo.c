/* SPDX-License-Identifier: PostgreSQL */
/*
 * conninfo: finds the keywords that carry secrets, in both of libpq's notations.
 *
 * The rules of quoting are those of libpq's conninfo_parse() and conninfo_uri_parse(). Errors never quote a value.
 */
#include "conninfo.h"

#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "mem.h"

static const char *const secrets[] = {"password", "sslpassword", "oauth_client_secret", "scram_client_key"};

static bool is_secret(const char *keyword, size_t length)
{
    for (size_t i = 0; i < ELEMENTS(secrets); i++)
        if (strlen(secrets[i]) == length && memcmp(secrets[i], keyword, length) == 0)
            return true;
    return false;
}

static const char *skip_blanks(const char *at)
{
    while (isspace((unsigned char)*at))
        at++;
    return at;
}

/* The end of a value, quoted or not; NULL when its quote is never closed. */
static const char *skip_value(const char *at)
{
    bool quoted = *at == '\'';

    for (at += quoted; *at != '\0'; at++) {
        if (quoted ? *at == '\'' : isspace((unsigned char)*at))
            return at + quoted;
        if (*at == '\\' && at[1] != '\0')
            at++;
    }
    return quoted ? NULL : at;
}

static int inspect_keywords(const char *at, bool *ret_secret, char **ret_error)
{
    bool secret = false;

    for (at = skip_blanks(at); *at != '\0'; at = skip_blanks(at)) {
        const char *keyword = at;
        size_t length = strcspn(at, "= \t\n\r\f\v");

        at = skip_blanks(at + length);
        if (*at != '=')
            return mem_fail(-EINVAL, ret_error, "conninfo has no \"=\" after \"%.*s\"", (int)length, keyword);

        const char *value = skip_blanks(at + 1);

        at = skip_value(value);
        if (at == NULL)
            return mem_fail(-EINVAL, ret_error, "conninfo has a quote without an end after \"%.*s\"", (int)length,
                            keyword);
        if (is_secret(keyword, length) && at != value && strncmp(value, "''", 2) != 0)
            secret = true;
    }
    *ret_secret = secret;
    return 0;
}

/* scheme://[user[:password]@][hosts][/dbname][?keyword=value[&…]] */
static bool uri_has_secret(const char *at)
{
    size_t credentials = strcspn(at, "@/");

    if (at[credentials] == '@') {
        size_t user = strcspn(at, ":@");

        if (user + 1 < credentials) /* what follows the colon is not empty */
            return true;
    }
    at += strcspn(at, "?");
    while (*at != '\0') {
        const char *keyword = at + 1;
        size_t length = strcspn(keyword, "=&");

        at = keyword + strcspn(keyword, "&");
        if (is_secret(keyword, length) && keyword + length + 1 < at)
            return true;
    }
    return false;
}

int conninfo_inspect(const char *conninfo, bool *ret_secret, char **ret_error)
{
    static const char *const schemes[] = {"postgresql://", "postgres://"};

    for (size_t i = 0; i < ELEMENTS(schemes); i++)
        if (strncmp(conninfo, schemes[i], strlen(schemes[i])) == 0) {
            *ret_secret = uri_has_secret(conninfo + strlen(schemes[i]));
            return 0;
        }
    return inspect_keywords(conninfo, ret_secret, ret_error);
}
