/* SPDX-License-Identifier: PostgreSQL */
/*
 * Tests of configuration, source and conninfo, on real files in a directory of their own: what every wrong file is told,
 * to the letter; what right ones become; and that no damage to the example crashes the reader.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "configuration.h"
#include "conninfo.h"
#include "mem.h"

static char directory[] = "/tmp/roundsman-test-XXXXXX";

static void write_bytes(const char *path, const char *bytes, size_t length, mode_t mode)
{
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);

    assert_true(file >= 0);
    assert_int_equal(write(file, bytes, length), length);
    assert_int_equal(fchmod(file, mode), 0); /* whatever the umask */
    close(file);
}

static void write_file(const char *path, const char *text)
{
    write_bytes(path, text, strlen(text), 0644);
}

/* Files in the test's directory, "r.conf" being the one to load; and the errors of loading it ("": none). */
static void expect(const char *title, const char *text, const char *errors)
{
    struct configuration *configuration = NULL;
    AUTO_TEXT given = NULL;

    print_message("%s\n", title);
    write_file("r.conf", text);

    int result = configuration_load("r.conf", &configuration, &given);

    assert_string_equal(given == NULL ? "" : given, errors);
    assert_int_equal(result, *errors == '\0' ? 0 : -EINVAL);
    configuration_free(configuration);
}

#define JOB(more) "jobs = ( { name = \"a\"; kind = \"points\"; schedule = \"@daily\"; amount = 1; " more " } );\n"
#define CANCEL(more) "jobs = ( { name = \"c\"; kind = \"cancel\"; schedule = \"@daily\"; " more " } );\n"
#define RESTOCK(more) "jobs = ( { name = \"r\"; kind = \"restock\"; schedule = \"@every 30m\"; " more " } );\n"
#define DURATION "a duration in quotes, such as \"250ms\", \"30s\", \"30m\", \"12h\" or \"90d\""
#define DURATION_FORM "a duration such as \"250ms\", \"30s\", \"30m\", \"12h\" or \"90d\""
#define NUMBER "a whole number without quotes, such as 10 or 10000L"
#define WORDS "an array of texts or whole numbers, such as [\"PAYING\", \"CREATED\"]"
#define NO_JOBS "r.conf: no \"jobs\": there is nothing to do without jobs = ( { name = ...; }, ... )\n"
#define NAME_RULE "a job's name has letters, digits, \".\", \"_\" and \"-\", and does not begin with \"-\"\n"
#define ZONE_HINT                                                                                                      \
    "give an IANA name that this host has, such as \"Asia/Seoul\" (timedatectl list-timezones prints them)\n"
#define SIXTY_THREE "123456789.123456789.123456789.123456789.123456789.123456789.123"

struct example {
    const char *title, *text, *errors;
};

static const struct example groups[] = {
    {"the least", JOB(""), ""},
    {"empty", "", "r.conf: this file is empty\n"},
    {"a comment alone", "# nothing", NO_JOBS},
    {"all groups empty", "database = {}; ledger = {}; tables = { users = {}; }; defaults = {};\n" JOB(""), ""},
    {"unknown at the top", "databse = { };\nmax_parallel = 3;\nmetrics = { listen = \"x\"; };\n" JOB(""),
     "r.conf:1: unknown key \"databse\" at the top level; did you mean \"database\"?\n"
     "r.conf:2: unknown key \"max_parallel\" at the top level\n"
     "r.conf:3: unknown key \"metrics\" at the top level\n"},
    {"no groups", "database = \"x\";\nledger = 5;\ntables = [];\ndefaults = true;\n" JOB(""),
     "r.conf:1: database must be a group, database = { ... }, not the text \"x\"\n"
     "r.conf:2: ledger must be a group, ledger = { ... }, not the number 5\n"
     "r.conf:3: tables must be a group, tables = { ... }, not an array [ ]\n"
     "r.conf:4: defaults must be a group, defaults = { ... }, not true\n"},
    {"database", "database = {\n conninfo = 5;\n coninfo = \"\"; };\n" JOB(""),
     "r.conf:2: conninfo must be a text in quotes, not the number 5\n"
     "r.conf:3: unknown key \"coninfo\" in database; did you mean \"conninfo\"?\n"},
    {"conninfo's form", "database = { conninfo = \"host=x dbname\"; };\n" JOB(""),
     "r.conf:1: conninfo has no \"=\" after \"dbname\"\n"},
    {"conninfo's quotes", "database = { conninfo = \"host='x\"; };\n" JOB(""),
     "r.conf:1: conninfo has a quote without an end after \"host\"\n"},
    {"conninfo that libpq does not know", "database = {\n conninfo = \"host=x passwrd=foo\"; };\nlane = 1;\n" JOB(""),
     "r.conf:2: conninfo cannot be used: invalid connection option \"passwrd\"\n"
     "r.conf:3: unknown key \"lane\" at the top level\n"},
    {"ledger", "ledger = {\n schema = \"\";\n keep = 90;\n role = true;\n keeps = 5; };\n" JOB(""),
     "r.conf:2: schema must not be empty\n"
     "r.conf:3: keep must be " DURATION ", not the number 90\n"
     "r.conf:4: role must be a text in quotes, not true\n"
     "r.conf:5: unknown key \"keeps\" in ledger; did you mean \"keep\"?\n"},
    {"ledger's names",
     "ledger = {\n schema = \"pg_books\";\n keep = \"0s\";\n role = \"" SIXTY_THREE "4\"; };\n" JOB(""),
     "r.conf:2: schema \"pg_books\": PostgreSQL keeps names that begin with pg_ for itself\n"
     "r.conf:3: keep must be from 1s to 36525d, not 0s\n"
     "r.conf:4: role has 64 bytes: a name in PostgreSQL has at most 63\n"},
    {"a schema that is not the ledger's own", "ledger = { schema = \"public\"; };\n" JOB(""),
     "r.conf:1: schema \"public\": the ledger has tables with names such as run and job, and needs a schema of its own, "
     "such as \"roundsman\"\n"},
    {"or the server's", "ledger = { schema = \"information_schema\"; };\n" JOB(""),
     "r.conf:1: schema \"information_schema\": PostgreSQL keeps that name for itself\n"},
    {"clock skew", "max_clock_skew = \"0s\";\n" JOB(""), "r.conf:1: max_clock_skew must be from 1s to 1d, not 0s\n"},
    {"the limits of replicas and slots", "max_replica_lag = \"10s\";\nmax_slot_wal = \"10GB\";\n" JOB(""), ""},
    {"which are of their types",
     "max_replica_lag = 10;\nmax_slot_wal = 10;\n" JOB(""),
     "r.conf:1: max_replica_lag must be " DURATION ", not the number 10\n"
     "r.conf:2: max_slot_wal must be a size in quotes, such as \"512MB\" or \"10GB\", not the number 10\n"},
    {"and of their form",
     "max_replica_lag = \"10\";\nmax_slot_wal = \"10\";\nmax_slot_wall = \"1GB\";\n" JOB(""),
     "r.conf:1: max_replica_lag must be " DURATION_FORM ", not \"10\"\n"
     "r.conf:2: max_slot_wal must be a size such as \"512MB\" or \"10GB\", not \"10\"\n"
     "r.conf:3: unknown key \"max_slot_wall\" at the top level; did you mean \"max_slot_wal\"?\n"},
    {"and of the whole daemon", JOB("max_replica_lag = \"10s\";\n max_slot_wal = \"1GB\";"),
     "r.conf:1: unknown key \"max_replica_lag\" in job \"a\"\n"
     "r.conf:2: unknown key \"max_slot_wal\" in job \"a\"\n"},
    {"tables",
     "tables = {\n user = { };\n users = {\n  tabel = \"x\";\n  key = \"\";\n  touched = \"\"; };\n"
     " orders = {\n  touched = \"\";\n  points_spent = \"\"; }; };\n" JOB(""),
     "r.conf:2: unknown key \"user\" in tables; did you mean \"users\"?\n"
     "r.conf:4: unknown key \"tabel\" in tables.users; did you mean \"table\"?\n"
     "r.conf:5: key must not be empty\n"
     "r.conf:8: touched must not be empty\n"},
    {"table's form",
     "tables = {\n users = { table = \"a.b.c\"; };\n items = { table = \".x\"; };\n orders = { table = \"x.\"; };\n"
     " order_items = { table = \"" SIXTY_THREE "\"; }; };\n" JOB(""),
     "r.conf:2: table must be \"table\" or \"schema.table\", not \"a.b.c\"\n"
     "r.conf:3: table must be \"table\" or \"schema.table\", not \".x\"\n"
     "r.conf:4: table must be \"table\" or \"schema.table\", not \"x.\"\n"
     "r.conf:5: table must be \"table\" or \"schema.table\", not \"" SIXTY_THREE "\"\n"},
    {"quotes around names",
     "tables = {\n users = { table = \"\\\"shop\\\".\\\"Mixed Case\\\"\"; };\n items = { table = \"shop.\\\"X\\\"\";\n"
     " stock = \"\\\"Stock\\\"\"; };\n orders = { table = \"Mixed \\\"Case\\\" as it is\"; }; };\n" JOB(""),
     "r.conf:2: table = \"shop\".\"Mixed Case\": leave the quotes inside of the text out\n"
     "r.conf:3: table = shop.\"X\": leave the quotes inside of the text out\n"
     "r.conf:4: stock = \"Stock\": leave the quotes inside of the text out\n"},
    {"too long a column", "tables = { items = { stock = \"" SIXTY_THREE "4\"; }; };\n" JOB(""),
     "r.conf:1: stock has 64 bytes: a name in PostgreSQL has at most 63\n"},
    {"a zone without its column", "tables = { users = { touched = \"\";\n touched_zone = \"UTC\"; }; };\n" JOB(""),
     "r.conf:2: touched_zone is the zone of touched, but touched is \"\": leave it out\n"},
    {"an unknown one", "tables = { orders = {\n touched_zone = \"Mars/Olympus\"; }; };\n" JOB(""),
     "r.conf:2: unknown touched_zone \"Mars/Olympus\": " ZONE_HINT},
    {"defaults",
     "defaults = {\n schedule = \"x\";\n lane = 2;\n lanes = 0;\n timezone = \"Asia/Soul\";\n catch_up = \"most\";\n"
     " name = \"x\";\n where = \"true\";\n amount = 5; };\n" JOB(""),
     "r.conf:2: unknown key \"schedule\" in defaults\n"
     "r.conf:3: unknown key \"lane\" in defaults; did you mean \"lanes\"?\n"
     "r.conf:4: lanes must be from 1 to 64, not 0\n"
     "r.conf:5: unknown timezone \"Asia/Soul\": " ZONE_HINT
     "r.conf:6: catch_up must be \"latest\", \"all\" or \"none\", not \"most\"\n"
     "r.conf:7: unknown key \"name\" in defaults\n"
     "r.conf:8: unknown key \"where\" in defaults\n"
     "r.conf:9: unknown key \"amount\" in defaults\n"},
    {"a job's jobs", "jobs = {};",
     "r.conf:1: jobs must be a list of groups, jobs = ( { name = ...; }, ... ), not a group\n"},
    {"an array of jobs", "jobs = [];",
     "r.conf:1: jobs must be a list of groups, jobs = ( { name = ...; }, ... ), not an array [ ]\n"},
    {"an empty list", "\njobs = ();", "r.conf:2: jobs is empty: there is nothing to do\n"},
    {"no group", "jobs = (\n5, \"x\" );",
     "r.conf:2: a job must be a group, { name = ...; }, not the number 5\n"
     "r.conf:2: a job must be a group, { name = ...; }, not the text \"x\"\n"},
    {"syntax", "# fine\njobs = (\n { name = \"a\" kind = }\n);", "r.conf:3: syntax error, here or just before\n"},
    {"syntax at the end", "jobs = ( {", "r.conf:2: syntax error, here or just before\n"},
    {"twice", "ledger = { keep = \"1d\";\n keep = \"2d\"; };\n" JOB(""), 
     "r.conf:2: a name here or just before is given twice in one group: take one of the two out\n"},
    {"mixed array", CANCEL("statuses = [ \"A\",\n 5 ];"), 
     "r.conf:2: an array [ ] takes values of one type: make it a list ( )\n"},
};

static const struct example jobs[] = {
    {"every common setting",
     JOB("where = \"active\"; enabled = false; timezone = \"Europe/Berlin\"; catch_up = \"none\"; catch_up_max_age = "
         "\"1s\";"
         "jitter = \"1h\"; max_runtime = \"1h\"; retry_delay = \"5m\"; lanes = 64L; batch_time = \"10s\"; batch_max = "
         "1000000;"
         "lock_timeout = \"500ms\"; pace = \"gentle\"; finish_within = \"30d\";"),
     ""},
    {"nothing in it", "jobs = (\n { } );",
     "r.conf:2: no \"name\" in job 1\nr.conf:2: no \"kind\" in job 1\nr.conf:2: no \"schedule\" in job 1\n"},
    {"a typo", "jobs = ( { name = \"x\"; kind = \"points\"; schedule = \"@daily\";\n amout = 5; } );",
     "r.conf:1: no \"amount\" in job \"x\"\n"
     "r.conf:2: unknown key \"amout\" in job \"x\"; did you mean \"amount\"?\n"},
    {"of later versions",
     JOB("\n notify = \"x\"; on_failure = \"y\"; max_parallel = 1;"),
     "r.conf:2: unknown key \"notify\" in job \"a\"\n"
     "r.conf:2: unknown key \"on_failure\" in job \"a\"\n"
     "r.conf:2: unknown key \"max_parallel\" in job \"a\"\n"},
    {"a pace that there is not",
     JOB("pace = \"slow\";\n finish_within = \"31d\";"),
     "r.conf:1: pace must be \"gentle\", \"normal\" or \"full\", not \"slow\"\n"
     "r.conf:2: finish_within must be from 0s to 30d, not 31d\n"},
    {"of the wrong types",
     JOB("pace = 1;\n finish_within = 2;"),
     "r.conf:1: pace must be a text in quotes, not the number 1\n"
     "r.conf:2: finish_within must be " DURATION ", not the number 2\n"},
    {"of other kinds", JOB("\nolder_than = \"30m\"; add = 5;"),
     "r.conf:2: unknown key \"older_than\" in job \"a\": it is for jobs of kind \"cancel\", not \"points\"\n"
     "r.conf:2: unknown key \"add\" in job \"a\": it is for jobs of kind \"restock\", not \"points\"\n"},
    {"a kind nearly", "jobs = ( { name = \"x\"; schedule = \"@daily\"; amount = 5;\n kind = \"point\"; } );",
     "r.conf:2: unknown kind \"point\"; did you mean \"points\"?\n"},
    {"a kind by far", "jobs = ( { name = \"x\"; schedule = \"@daily\"; amount = 5;\n kind = \"vacuum\"; } );",
     "r.conf:2: unknown kind \"vacuum\": there are \"points\", \"restock\" and \"cancel\"\n"},
    {"a kind of the wrong type", "jobs = ( { name = \"x\"; schedule = \"@daily\"; amount = 5;\n kind = 1; } );",
     "r.conf:2: kind must be a text in quotes, not the number 1\n"},
    {"an empty kind", "jobs = ( { name = \"x\"; schedule = \"@daily\"; kind = \"\"; } );",
     "r.conf:1: kind must not be empty\n"},
    {"where for a kind without", CANCEL("where = \"true\";"), "r.conf:1: jobs of kind \"cancel\" take no where\n"},
    {"wrong types",
     JOB("where = 1;\n enabled = 1;\n timezone = 9;\n catch_up = true;\n jitter = 0;\n lanes = \"2\";\n"
         " batch_time = [\"25ms\"];\n batch_max = (1);\n lock_timeout = { };"),
     "r.conf:1: where must be a text in quotes, not the number 1\n"
     "r.conf:2: enabled must be true or false, without quotes, not the number 1\n"
     "r.conf:3: timezone must be a text in quotes, not the number 9\n"
     "r.conf:4: catch_up must be a text in quotes, not true\n"
     "r.conf:5: jitter must be " DURATION ", not the number 0\n"
     "r.conf:6: lanes must be " NUMBER ", not the text \"2\"\n"
     "r.conf:7: batch_time must be " DURATION ", not an array [ ]\n"
     "r.conf:8: batch_max must be " NUMBER ", not a list ( )\n"
     "r.conf:9: lock_timeout must be " DURATION ", not a group\n"},
    {"bounds",
     JOB("catch_up_max_age = \"0s\";\n max_runtime = \"40000d\";\n retry_delay = \"6m\";\n lanes = 65;\n batch_time = "
         "\"11s\";\n"
         " batch_max = 0;\n lock_timeout = \"501ms\";\n jitter = \"25h\"; where = \"\";"),
     "r.conf:1: catch_up_max_age must be from 1s to 36525d, not 0s\n"
     "r.conf:2: max_runtime = \"40000d\" is over 100 years\n"
     "r.conf:3: retry_delay must be from 1s to 5m, not 6m: it doubles with every attempt, up to 5m\n"
     "r.conf:4: lanes must be from 1 to 64, not 65\n"
     "r.conf:5: batch_time must be from 1ms to 10s, not 11s\n"
     "r.conf:6: batch_max must be from 1 to 1000000, not 0\n"
     "r.conf:7: lock_timeout must be from 1ms to 500ms, not 501ms: it has to stay well below the server's deadlock_timeout "
     "(1s), "
     "so that live traffic never loses a deadlock to us\n"
     "r.conf:8: jitter must be from 0s to 1d, not 25h\n"
     "r.conf:8: where must not be empty\n"},
    {"no lock_timeout at all", JOB("lock_timeout = \"0s\";"),
     "r.conf:1: lock_timeout must be from 1ms to 500ms, not 0s: it has to stay well below the server's deadlock_timeout "
     "(1s), "
     "so that live traffic never loses a deadlock to us\n"},
    {"a duration's form", JOB("batch_time = \"25 ms\"; jitter = \"-1s\";"),
     "r.conf:1: batch_time must be " DURATION_FORM ", not \"25 ms\"\n"
     "r.conf:1: jitter must be " DURATION_FORM ", not \"-1s\"\n"},
    {"names",
     "defaults = { catch_up = \"all\"; };\njobs = (\n"
     " { name = \"\"; kind = \"points\"; schedule = \"@daily\"; amount = 1; },\n"
     " { name = \"-x\"; kind = \"points\"; schedule = \"@daily\"; amount = 1; },\n"
     " { name = \"a b\"; kind = \"points\"; schedule = \"@daily\"; amount = 1; },\n"
     " { name = \"b\xc3\xa9\"; kind = \"points\"; schedule = \"@daily\"; amount = 1; },\n"
     " { name = \"" SIXTY_THREE "\"; kind = \"points\"; schedule = \"@daily\"; amount = 1; },\n"
     " { name = \"" SIXTY_THREE "4\"; kind = \"points\"; schedule = \"@daily\"; amount = 1; },\n"
     " { name = \"A.b_c-9\"; kind = \"points\"; schedule = \"@daily\"; amount = 1; }\n);",
     "r.conf:3: name must not be empty\n"
     "r.conf:4: name \"-x\": " NAME_RULE "r.conf:5: name \"a b\": " NAME_RULE "r.conf:6: name \"b\xc3\xa9\": " NAME_RULE
     "r.conf:8: name \"" SIXTY_THREE "4\": a job's name has at most 63 bytes\n"},
    {"one name for three",
     "jobs = (\n { name = \"a\"; kind = \"points\"; schedule = \"@daily\"; amount = 1; },\n"
     " {\n   name = \"a\"; kind = \"points\"; schedule = \"@daily\"; amount = 1; },\n"
     " { name = \"a\"; kind = \"points\"; schedule = \"@daily\"; amount = 1; }\n);",
     "r.conf:4: there is a job \"a\" already, at r.conf:2: give this one a name of its own\n"
     "r.conf:5: there is a job \"a\" already, at r.conf:2: give this one a name of its own\n"},
    {"timezone", JOB("timezone = \"Europe/Berlni\";"), "r.conf:1: unknown timezone \"Europe/Berlni\": " ZONE_HINT},
    {"timezone of the host", "defaults = { timezone = \"Asia/Seoul\"; };\n" JOB("timezone = \"UTC\";"), ""},
    {"jitter beyond the next", RESTOCK("add = 1;\n jitter = \"30m\";"),
     "r.conf:2: jitter must be below 30m, the shortest time between two occurrences of \"@every 30m\", not 30m\n"},
    {"jitter within", RESTOCK("add = 1;\n jitter = \"1799s\";"), ""},
    {"jitter of an irregular schedule",
     "jobs = ( { name = \"a\"; kind = \"points\"; schedule = \"0,10 0 * * *\"; timezone = \"UTC\"; amount = 1; jitter "
     "= \"1h\"; } );",
     "r.conf:1: jitter must be below 10m, the shortest time between two occurrences of \"0,10 0 * * *\", not 1h\n"},
    {"amount 0", "jobs = (\n { name = \"a\"; kind = \"points\"; schedule = \"@daily\"; amount = 0; } );",
     "r.conf:2: amount is 0, which would change nothing: give the points to add, or a negative number to deduct\n"},
    {"restock: nothing", RESTOCK(""),
     "r.conf:1: a restock needs add = N (with up_to = N as its cap, if there is one), or fill_to = N\n"},
    {"restock: too much", RESTOCK("fill_to = 5; up_to = 5;"),
     "r.conf:1: fill_to stands alone: give either fill_to, or add with an optional up_to\n"},
    {"restock: 0", RESTOCK("add = 0; up_to = -1;"),
     "r.conf:1: add must be at least 1, not 0\nr.conf:1: up_to must be at least 1, not -1\n"},
    {"cancel: lists", CANCEL("statuses = (\"A\", 5, 5000000000L); unpaid_statuses = [6, 7];"), ""},
    {"cancel: no list", CANCEL("statuses = \"A\";\n unpaid_statuses = (\"B\",\n true);"),
     "r.conf:1: statuses must be " WORDS ", not the text \"A\"\n"
     "r.conf:3: unpaid_statuses must be " WORDS ", not true\n"},
    {"cancel: words", CANCEL("statuses = [\"\"];\n unpaid_statuses = [\"a,b\"];\n canceled = \"\"; call = \"\";"),
     "r.conf:1: statuses has an empty word among its words\n"
     "r.conf:2: unpaid_statuses: \"a,b\" has a comma, which separates words\n"
     "r.conf:3: canceled must not be empty\n"
     "r.conf:3: call must not be empty\n"},
    {"cancel: one status for all", CANCEL("\nstatuses = [\"A\"]; unpaid_statuses = [\"B\", \"A\"]; canceled = \"A\";"),
     "r.conf:1: \"A\" is in both statuses and unpaid_statuses: it either reserved stock or it did not\n"
     "r.conf:1: canceled = \"A\" is also among the statuses to cancel: an order would be canceled for ever\n"},
    {"cancel: nothing", CANCEL("statuses = [];"),
     "r.conf:1: statuses and unpaid_statuses are both empty: no order would ever be canceled\n"},
};

static const struct example integers[] = {
    {"32 bits", JOB("lanes = 2147483648;"), "r.conf:1: 2147483648 does not fit 32 bits: write 2147483648L\n"},
    {"negative", "x = -2147483648;\ny = -2147483649;\n" JOB(""),
     "r.conf:1: unknown key \"x\" at the top level\n"
     "r.conf:2: -2147483649 does not fit 32 bits: write -2147483649L\n"
     "r.conf:2: unknown key \"y\" at the top level\n"},
    {"hexadecimal", "jobs = ( { name = \"a\"; kind = \"points\"; schedule = \"@daily\";\namount = 0xFFFFFFFF; } );",
     "r.conf:2: 0xFFFFFFFF does not fit 32 bits: write 0xFFFFFFFFL\n"},
    {"with L", "jobs = ( { name = \"a\"; kind = \"points\"; schedule = \"@daily\"; amount = 0xFFFFFFFFL; } );", ""},
    {"with LL",
     "jobs = ( { name = \"a\"; kind = \"points\"; schedule = \"@daily\"; amount = -9223372036854775808LL; } );", ""},
    {"64 bits",
     JOB("lanes = 9223372036854775808L;\n batch_max = 99999999999999999999999;\n"
         " x = -9223372036854775809L; y = 0x8000000000000000L;"),
     "r.conf:1: 9223372036854775808L does not fit 64 bits\n"
     "r.conf:2: 99999999999999999999999 does not fit 64 bits\n"
     "r.conf:3: -9223372036854775809L does not fit 64 bits\n"
     "r.conf:3: 0x8000000000000000L does not fit 64 bits\n"
     "r.conf:3: unknown key \"x\" in job \"a\"\n"
     "r.conf:3: unknown key \"y\" in job \"a\"\n"},
    {"in a list", CANCEL("statuses = (1, 5000000000);"),
     "r.conf:1: 5000000000 does not fit 32 bits: write 5000000000L\n"},
    {"not in comments and texts",
     "# 5000000000\n// 5000000000\n/* 5000000000\n 5000000000 */ defaults = { };\n"
     "ledger = { role = \"5000000000\\\" 5000000000\n5000000000\"; };\n" JOB(""),
     ""},
    {"not in names and fractions", "a5000000000 = 1;\nb = 5000000000.0;\nc = 5000000000e1;\n" JOB(""),
     "r.conf:1: unknown key \"a5000000000\" at the top level\n"
     "r.conf:2: unknown key \"b\" at the top level\n"
     "r.conf:3: unknown key \"c\" at the top level\n"},
    {"beside a syntax error", "a = 5000000000;\nb = ;\n",
     "r.conf:1: 5000000000 does not fit 32 bits: write 5000000000L\n"
     "r.conf:2: syntax error, here or just before\n"},
    {"a comment without an end", JOB("") "/* 5\n\n",
     "r.conf:2: the comment that begins here has no end: */ is missing\n"},
    {"a text without an end", "# x\nledger = {\n role = \"x; };\n" JOB(""),
     "r.conf:4: the text that begins here has no end: \" is missing (or one is too many before it)\n"
     "r.conf:4: syntax error, here or just before\n"},
    {"a text to the end", JOB("") "a = \"b;\n\n",
     "r.conf:2: the text that begins here has no end: \" is missing (or one is too many before it)\n"
     "r.conf:2: unknown key \"a\" at the top level\n"},
    {"a comment at the very end", JOB("") "# the end", ""},
    {"lines of DOS", "# x\r\nlanes = 2;\r\n" JOB(""), "r.conf:2: unknown key \"lanes\" at the top level\n"},
};

static void run(const struct example *examples, size_t count)
{
    for (size_t i = 0; i < count; i++)
        expect(examples[i].title, examples[i].text, examples[i].errors);
}

static void test_groups(void **state)
{
    (void)state;
    run(groups, ELEMENTS(groups));
}

static void test_jobs(void **state)
{
    (void)state;
    run(jobs, ELEMENTS(jobs));
}

static void test_integers(void **state)
{
    (void)state;
    run(integers, ELEMENTS(integers));
}

/* The schedule's own message, whatever it is, once, at its line; with a zone that is wrong, too. */
static void test_schedule(void **state)
{
    struct schedule *schedule = NULL;
    AUTO_TEXT reason = NULL;

    (void)state;
    assert_int_equal(schedule_parse("61 0 * * *", "UTC", &schedule, &reason), -EINVAL);

    AUTO_TEXT alone = mem_print("r.conf:2: schedule \"61 0 * * *\": %s\n", reason);
    AUTO_TEXT both = mem_print("r.conf:1: unknown timezone \"Mars\": " ZONE_HINT "%s", alone);

    expect("a schedule", "jobs = ( { name = \"a\"; kind = \"points\"; amount = 1;\n schedule = \"61 0 * * *\"; } );",
           alone);
    expect("its zone",
           "jobs = ( { name = \"a\"; kind = \"points\"; amount = 1; timezone = \"Mars\";\n"
           " schedule = \"61 0 * * *\"; } );",
           both);
    expect("no schedule", "jobs = ( { name = \"a\"; kind = \"points\"; amount = 1;\n schedule = \"\"; } );",
           "r.conf:2: schedule must not be empty\n");
}

static void test_include(void **state)
{
    (void)state;
    assert_int_equal(mkdir("d", 0755), 0);
    assert_int_equal(mkdir("d/e", 0755), 0);
    write_file("defaults.conf", "# no end of line\ndefaults = { lanes = 3; }; # here");
    write_file("d/jobs.conf", "@include \"e/one.conf\",\n\t@include \"../two.conf\"\n");
    write_file("d/e/one.conf", "{ name = \"one\"; kind = \"points\"; schedule = \"@daily\"; amount = 1; }\n");
    write_file("two.conf", "{ name = \"two\";\n kind = \"points\"; schedule = \"@daily\"; amount = 2; }\n");
    expect("nested, each beside its own", "@include \"defaults.conf\"\njobs = (\n@include \"d/jobs.conf\"\n);\n", "");

    write_file("d/e/one.conf", "{ name = \"one\"; kind = \"points\";\n shedule = \"@daily\"; amount = 5000000000; }\n");
    write_file("two.conf", "{ name = \"two\";\n\n kind = \"point\"; schedule = \"@daily\"; amount = 2; }\n");
    expect("errors where they are",
           "@include \"defaults.conf\"\nlane = 5;\njobs = (\n@include \"d/jobs.conf\"\n);\nlast = 1;\n",
           "r.conf:2: unknown key \"lane\" at the top level\n"
           "r.conf:6: unknown key \"last\" at the top level\n"
           "d/e/one.conf:1: no \"schedule\" in job \"one\"\n"
           "d/e/one.conf:2: 5000000000 does not fit 32 bits: write 5000000000L\n"
           "d/e/one.conf:2: unknown key \"shedule\" in job \"one\"; did you mean \"schedule\"?\n"
           "d/../two.conf:3: unknown kind \"point\"; did you mean \"points\"?\n");

    write_file("two.conf", "a = ;\n");
    expect("syntax errors, too", "# x\n@include \"two.conf\"\n", "two.conf:1: syntax error, here or just before\n");
    write_file("two.conf", "a = 1;\n");
    expect("after an included one", "# x\n@include \"two.conf\" # comment\nb = ;\n",
           "r.conf:3: syntax error, here or just before\n");
    expect("what follows on its line", "@include \"two.conf\" b = 1;\n" JOB(""),
           "r.conf:1: unknown key \"b\" at the top level\ntwo.conf:1: unknown key \"a\" at the top level\n");
    expect("once a line", "@include \"two.conf\" @include \"two.conf\"\n",
           "r.conf:1: syntax error, here or just before\n");

    expect("missing", "\n@include \"three.conf\"\n" JOB(""),
           "r.conf:2: cannot include three.conf: No such file or directory\n");
    expect("a directory", "@include \"d\"\n" JOB(""), "r.conf:1: cannot include d: Is a directory\n");
    expect("no name", "@include two.conf\n" JOB(""),
           "r.conf:1: @include needs the name of a file in quotes: @include \"jobs.conf\"\n");
    expect("no end", "@include \"two.conf\n" JOB(""),
           "r.conf:1: @include needs the name of a file in quotes: @include \"jobs.conf\"\n");
    expect("itself", "# x\n@include \"r.conf\"\n", "r.conf:2: cannot include r.conf: it would include itself\n");
    write_file("two.conf", "\n\n@include \"r.conf\"\n");
    expect("in a circle", "@include \"two.conf\"\n", "two.conf:3: cannot include r.conf: it would include itself\n");
    expect("not in comments and texts",
           "/*\n@include \"no.conf\"\n*/\nledger = { role = \"\n@include \\\"no.conf\\\"\n\"; };\n" JOB(""), "");
    write_file("two.conf", "");
    expect("an empty one", "@include \"two.conf\"\n" JOB(""), "");
    write_file("two.conf", "/* no end\n");
    expect("a comment stays in its file", "@include \"two.conf\"\n*/\n" JOB(""),
           "r.conf:2: syntax error, here or just before\n"
           "two.conf:1: the comment that begins here has no end: */ is missing\n");

    AUTO_TEXT absolute = mem_print("@include \"%s/defaults.conf\"\n" JOB(""), directory);

    expect("an absolute path", absolute, "");
    for (int i = 1; i <= 11; i++) {
        AUTO_TEXT path = mem_print("deep%d.conf", i);
        AUTO_TEXT text = mem_print("@include \"deep%d.conf\"\n", i + 1);

        write_file(path, text);
    }
    expect("deep", "@include \"deep1.conf\"\n",
           "deep9.conf:1: cannot include deep10.conf: files include files 10 deep\n");
}

#define NOT_UTF8(byte, hex)                                                                                            \
    "the file must be UTF-8, and byte " byte " of this line (" hex ") is not; if it is Latin-1, iconv -f LATIN1 -t "    \
    "UTF-8 converts it\n"

/* Each in the second line, behind "# \xc3\xa4 ": what is UTF-8, and what is not. */
static void test_encoding(void **state)
{
    static const struct {
        const char *bytes;
        unsigned wrong; /* the byte that is; 0: none */
    } strings[] = {
        {"\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", 0},
        {"\xe4", 0xe4},             /* Latin-1 */
        {"\xc3", 0xc3},             /* cut off by the end of the line */
        {"\xe2\x82", 0xe2},         /* the same */
        {"\x80", 0x80},             /* no beginning */
        {"\xc0\x80", 0xc0},         /* longer than it need be */
        {"\xc1\xbf", 0xc1},         /* the same */
        {"\xe0\x9f\xbf", 0xe0},     /* the same */
        {"\xf0\x8f\xbf\xbf", 0xf0}, /* the same */
        {"\xed\xa0\x80", 0xed},     /* a surrogate */
        {"\xf4\x90\x80\x80", 0xf4}, /* beyond Unicode */
        {"\xf5\x80\x80\x80", 0xf5}, /* the same */
        {"\xff", 0xff},
    };

    (void)state;
    for (size_t i = 0; i < ELEMENTS(strings); i++) {
        AUTO_TEXT text = mem_print("\n# \xc3\xa4 %s\n# \xff\n" JOB(""), strings[i].bytes);
        AUTO_TEXT errors = mem_print("r.conf:2: " NOT_UTF8("6", "0x%02x"), strings[i].wrong);

        expect("bytes", text, strings[i].wrong != 0 ? errors : "r.conf:3: " NOT_UTF8("3", "0xff"));
    }
    write_file("two.conf", "tables = { users = { points = \"Guthaben f\xfcr\"; }; };\n");
    expect("in an included file, beside other errors", "lane = 5;\n@include \"two.conf\"\n" JOB(""),
           "r.conf:1: unknown key \"lane\" at the top level\n"
           "two.conf:1: " NOT_UTF8("42", "0xfc"));
}

static void expect_unreadable(const char *path, const char *errors)
{
    struct configuration *configuration = NULL;
    AUTO_TEXT given = NULL;

    assert_int_equal(configuration_load(path, &configuration, &given), -EINVAL);
    assert_string_equal(given, errors);
    assert_null(configuration);
}

static void test_unreadable(void **state)
{
    (void)state;
    expect_unreadable("none.conf", "none.conf: cannot read this file: No such file or directory\n");
    expect_unreadable("/", "/: cannot read this file: Is a directory\n");
    write_bytes("nul.conf", "a = 1;\0b = 2;", 13, 0644);
    expect_unreadable("nul.conf", "nul.conf: it has a NUL byte: this is no text\n");
    write_file("large.conf", "");
    assert_int_equal(truncate("large.conf", 5 << 20), 0);
    expect_unreadable("large.conf", "large.conf: cannot read this file: File too large\n");
    if (geteuid() != 0) { /* root reads everything */
        write_bytes("closed.conf", "a = 1;", 6, 0000);
        expect_unreadable("closed.conf", "closed.conf: cannot read this file: Permission denied\n");
    }
}

static void test_conninfo(void **state)
{
    static const struct {
        const char *conninfo;
        bool secret;
        const char *error;
    } strings[] = {
        {"", false, NULL},
        {"host=/run/postgresql dbname=shop", false, NULL},
        {"password=x", true, NULL},
        {"  host = a   password = x ", true, NULL},
        {"host=a password='x y'", true, NULL},
        {"host=a sslpassword=x", true, NULL},
        {"host=a\npassword=x", true, NULL},
        {"password=", false, NULL},
        {"password='' host=a", false, NULL},
        {"passfile=/x requirepeer=password", false, NULL},
        {"application_name='password=x'", false, NULL},
        {"application_name='it\\'s password=x'", false, NULL},
        {"application_name=a\\ password=x", false, NULL},
        {"options='-c a=b' password=x", true, NULL},
        {"host", false, "conninfo has no \"=\" after \"host\""},
        {"host a", false, "conninfo has no \"=\" after \"host\""},
        {"=a", false, NULL},
        {"a='", false, "conninfo has a quote without an end after \"a\""},
        {"a='\\'", false, "conninfo has a quote without an end after \"a\""},
        {"a=\\", false, NULL},
        {"postgresql://", false, NULL},
        {"postgresql://host/db", false, NULL},
        {"postgresql://user@host:5432/db", false, NULL},
        {"postgresql://user:pw@host/db", true, NULL},
        {"postgres://:pw@host", true, NULL},
        {"postgresql://user:@host", false, NULL},
        {"postgresql://a:1,b:2/db", false, NULL},
        {"postgresql://host/a:b@c", false, NULL},
        {"postgresql:///db?password=x", true, NULL},
        {"postgresql:///db?user=a&password=x", true, NULL},
        {"postgresql:///db?sslpassword=x&user=a", true, NULL},
        {"postgresql:///db?password=", false, NULL},
        {"postgresql:///db?password", false, NULL},
        {"postgresql:///db?application_name=password", false, NULL},
        {"postgresql:///db?", false, NULL},
    };

    (void)state;
    for (size_t i = 0; i < ELEMENTS(strings); i++) {
        bool secret = false;
        AUTO_TEXT error = NULL;

        print_message("%s\n", strings[i].conninfo);
        assert_int_equal(conninfo_inspect(strings[i].conninfo, &secret, &error),
                         strings[i].error == NULL ? 0 : -EINVAL);
        assert_string_equal(error == NULL ? "" : error, strings[i].error == NULL ? "" : strings[i].error);
        assert_int_equal(secret, strings[i].secret);
    }
}

static void test_password(void **state)
{
    static const char with[] = "# x\ndatabase = { conninfo = \"host=a password=geheim\"; };\n";
    static const char include[] = "@include \"secret.conf\"\n" JOB("");
    struct configuration *configuration = NULL;
    AUTO_TEXT text = mem_print("%s" JOB(""), with);
    AUTO_TEXT errors = NULL;

    (void)state;
    expect("in the file", text,
           "r.conf:2: conninfo holds a password, and everybody can read this file: chmod o-r r.conf\n");
    assert_int_equal(chmod("r.conf", 0640), 0);
    assert_int_equal(configuration_load("r.conf", &configuration, &errors), 0);
    assert_string_equal(configuration->conninfo, "host=a password=geheim");
    configuration_free(configuration);

    write_bytes("secret.conf", with, strlen(with), 0644);
    expect("in an included one", include,
           "secret.conf:2: conninfo holds a password, and everybody can read this file: chmod o-r secret.conf\n");
    write_bytes("secret.conf", with, strlen(with), 0600);
    expect("which nobody else can read", include, "");
}

static void test_example(void **state)
{
    struct configuration *configuration = NULL;
    AUTO_TEXT errors = NULL;
    const struct job *job;

    (void)state;
    assert_int_equal(configuration_load(EXAMPLE, &configuration, &errors), 0);
    assert_string_equal(configuration->path, EXAMPLE);
    assert_string_equal(configuration->conninfo, "host=/run/postgresql dbname=shop");
    assert_string_equal(configuration->ledger_schema, "roundsman");
    assert_string_equal(configuration->ledger_role, "roundsman");
    assert_int_equal(configuration->ledger_keep, 90 * USEC_PER_DAY);
    assert_int_equal(configuration->max_clock_skew, 30 * USEC_PER_SEC);
    assert_int_equal(configuration->max_replica_lag, 0);
    assert_int_equal(configuration->max_slot_wal, 0);
    for (size_t i = 0; i < SHOP_NAMES; i++) /* the example shows the defaults */
        assert_string_equal(*shop_slot(&configuration->shop, &shop_names[i]), shop_names[i].fallback);

    assert_int_equal(configuration->job_count, 3);
    job = configuration_job(configuration, "daily-points");
    assert_non_null(job);
    assert_string_equal(job->kind->name, "points");
    assert_string_equal(job->schedule_text, "0 0 * * *");
    assert_string_equal(job->timezone, "Asia/Seoul");
    assert_true(job->enabled);
    assert_int_equal(job->catch_up, CATCH_UP_ALL);
    assert_int_equal(job->catch_up_max_age, 7 * USEC_PER_DAY);
    assert_int_equal(job->jitter, 0);
    assert_int_equal(job->max_runtime, 0);
    assert_int_equal(job->retry_delay, USEC_PER_SEC);
    assert_int_equal(job->lanes, 2);
    assert_int_equal(job->batch_time, 25 * USEC_PER_MSEC);
    assert_int_equal(job->batch_max, 10000);
    assert_int_equal(job->lock_timeout, 100 * USEC_PER_MSEC);
    assert_int_equal(job->pace, PACE_NORMAL);
    assert_int_equal(job->finish_within, 0);
    assert_null(job->where);
    assert_int_equal(setting_integer(&job->settings, "amount"), 10000);

    job = configuration_job(configuration, "restock");
    assert_int_equal(job->catch_up, CATCH_UP_LATEST);
    assert_int_equal(setting_integer(&job->settings, "add"), 10);
    assert_int_equal(setting_integer(&job->settings, "up_to"), 100);
    assert_null(setting_find(&job->settings, "fill_to"));

    job = configuration_job(configuration, "cancel-unpaid");
    assert_int_equal(setting_integer(&job->settings, "older_than"), 30 * USEC_PER_MINUTE);
    assert_string_equal(setting_words(&job->settings, "statuses")[0], "PAYING");
    assert_null(setting_words(&job->settings, "unpaid_statuses")[0]);
    assert_string_equal(setting_text(&job->settings, "canceled"), "CANCELED");
    assert_null(setting_text(&job->settings, "call"));

    assert_null(configuration_job(configuration, "points"));
    assert_string_equal(configuration_nearest_job(configuration, "restok"), "restock");
    assert_null(configuration_nearest_job(configuration, "backup"));
    configuration_free(configuration);
}

/* Everything away from its default. */
static void test_values(void **state)
{
    struct configuration *configuration = NULL;
    AUTO_TEXT errors = NULL;
    const struct job *job;

    (void)state;
    write_file(
        "r.conf",
        "ledger = { schema = \"books\"; keep = \"12h\"; role = \"walker\"; };\n"
        "max_clock_skew = \"5s\"; max_replica_lag = \"15s\"; max_slot_wal = \"512MB\";\n"
        "tables = { users = { table = \"auth_user\"; touched = \"\"; };\n"
        "  orders = { touched_zone = \"UTC\"; points_spent = \"\"; }; };\n"
        "defaults = { enabled = false; timezone = \"Europe/Berlin\"; catch_up = \"none\"; lanes = 5;\n"
        "  pace = \"gentle\"; finish_within = \"2h\"; };\n"
        "jobs = (\n"
        "  { name = \"a\"; kind = \"points\"; schedule = \"@daily\"; amount = -5000000000L; where = \"id > 5\";\n"
        "    catch_up_max_age = \"1d\"; jitter = \"10m\"; max_runtime = \"1h\"; retry_delay = \"2s\";\n"
        "    batch_time = \"50ms\"; batch_max = 7; lock_timeout = \"1ms\"; },\n"
        "  { name = \"b\"; kind = \"cancel\"; schedule = \"@daily\"; enabled = true; lanes = 6L;\n"
        "    timezone = \"\"; pace = \"full\"; statuses = (1, \"x\"); unpaid_statuses = [ 5000000000L ]; call = \"f\"; }\n);\n");
    assert_int_equal(configuration_load("r.conf", &configuration, &errors), 0);
    assert_string_equal(configuration->conninfo, "");
    assert_string_equal(configuration->ledger_schema, "books");
    assert_string_equal(configuration->ledger_role, "walker");
    assert_int_equal(configuration->ledger_keep, 12 * USEC_PER_HOUR);
    assert_int_equal(configuration->max_clock_skew, 5 * USEC_PER_SEC);
    assert_int_equal(configuration->max_replica_lag, 15 * USEC_PER_SEC);
    assert_int_equal(configuration->max_slot_wal, INT64_C(512) << 20);
    assert_string_equal(configuration->shop.users.table, "auth_user");
    assert_string_equal(configuration->shop.users.touched, "");
    assert_string_equal(configuration->shop.users.points, "points");
    assert_string_equal(configuration->shop.orders.touched_zone, "UTC");
    assert_string_equal(configuration->shop.orders.points_spent, "");
    assert_string_equal(configuration->shop.order_items.quantity, "quantity");

    job = &configuration->jobs[0];
    assert_int_equal(job->line, 8);
    assert_false(job->enabled);
    assert_string_equal(job->timezone, "Europe/Berlin");
    assert_string_equal(schedule_zone(job->schedule), "Europe/Berlin");
    assert_int_equal(job->catch_up, CATCH_UP_NONE);
    assert_int_equal(job->catch_up_max_age, USEC_PER_DAY);
    assert_int_equal(job->jitter, 10 * USEC_PER_MINUTE);
    assert_int_equal(job->max_runtime, USEC_PER_HOUR);
    assert_int_equal(job->retry_delay, 2 * USEC_PER_SEC);
    assert_int_equal(job->lanes, 5);
    assert_int_equal(job->batch_time, 50 * USEC_PER_MSEC);
    assert_int_equal(job->batch_max, 7);
    assert_int_equal(job->lock_timeout, USEC_PER_MSEC);
    assert_int_equal(job->pace, PACE_GENTLE);
    assert_int_equal(job->finish_within, 2 * USEC_PER_HOUR);
    assert_string_equal(job->where, "id > 5");
    assert_true(setting_integer(&job->settings, "amount") == INT64_C(-5000000000));

    job = &configuration->jobs[1];
    assert_int_equal(job->line, 11);
    assert_true(job->enabled);
    assert_string_equal(job->timezone, "");
    assert_int_equal(job->lanes, 6);
    assert_int_equal(job->pace, PACE_FULL);
    assert_int_equal(job->finish_within, 2 * USEC_PER_HOUR);
    assert_string_equal(setting_words(&job->settings, "statuses")[0], "1");
    assert_string_equal(setting_words(&job->settings, "statuses")[1], "x");
    assert_string_equal(setting_words(&job->settings, "unpaid_statuses")[0], "5000000000");
    assert_string_equal(setting_text(&job->settings, "call"), "f");
    configuration_free(configuration);
    configuration_free(NULL);
}

static uint64_t random_state = 20261122;

static size_t draw(size_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (size_t)(random_state >> 11) % below;
}

/* One blow at a text: a byte changed, a stretch lost, doubled or put elsewhere, a token of the grammar put in. */
static void damage(struct buf *text)
{
    static const char *const tokens[] = {"{",
                                         "}",
                                         "(",
                                         ")",
                                         "[",
                                         "]",
                                         "\"",
                                         "/*",
                                         "*/",
                                         "#",
                                         "\n",
                                         "\\",
                                         ";",
                                         "=",
                                         ",",
                                         "\n@include \"r.conf\"\n",
                                         "\n@include ",
                                         "5000000000",
                                         "0xFFFFFFFFF",
                                         "1e400",
                                         "-9L",
                                         "true",
                                         "name",
                                         "jobs",
                                         "\"@every 1s\"",
                                         "\"* * * * *\"",
                                         "\xff",
                                         "\r"};
    size_t at = draw(text->length), length = draw(40) + 1;
    AUTO_BUF copy = {0};

    if (length > text->length - at)
        length = text->length - at;
    buf_add_bytes(&copy, text->text, at);
    switch (draw(4)) {
    case 0:
        buf_print(&copy, "%c", (char)(draw(255) + 1));
        buf_add(&copy, text->text + at + 1);
        break;
    case 1:
        buf_add(&copy, text->text + at + length);
        break;
    case 2:
        buf_add_bytes(&copy, text->text + at, length);
        buf_add(&copy, text->text + at);
        break;
    default:
        buf_add(&copy, tokens[draw(ELEMENTS(tokens))]);
        buf_add(&copy, text->text + at);
    }
    if (copy.length > 0) {
        buf_clear(text);
        buf_add_bytes(text, copy.text, copy.length);
    }
}

/* Whatever becomes of the file, it is either taken, or refused with lines that name it. */
static void test_damage(void **state)
{
    struct buf example = {0};
    char block[4096];
    size_t got, refused = 0;
    FILE *file = fopen(EXAMPLE, "re");

    (void)state;
    assert_non_null(file);
    while ((got = fread(block, 1, sizeof(block), file)) > 0)
        buf_add_bytes(&example, block, got);
    fclose(file);
    for (int i = 0; i < 400; i++) {
        struct configuration *configuration = NULL;
        AUTO_TEXT errors = NULL;
        AUTO_BUF text = {0};

        buf_add_bytes(&text, example.text, example.length);
        for (size_t blows = draw(4) + 1; blows > 0; blows--)
            damage(&text);
        write_bytes("r.conf", text.text, text.length, 0644);
        if (configuration_load("r.conf", &configuration, &errors) == 0) {
            configuration_free(configuration);
            continue;
        }
        refused++;
        assert_null(configuration);
        assert_int_equal(errors[strlen(errors) - 1], '\n');
        assert_int_equal(strncmp(errors, "r.conf:", 7), 0);
    }
    buf_free(&example);
    print_message("%zu of 400 damaged files were refused\n", refused);
    assert_in_range(refused, 100, 399);
}

static int enter(void **state)
{
    (void)state;
    return mkdtemp(directory) == NULL || chdir(directory) < 0 ? -1 : 0;
}

static int leave(void **state)
{
    AUTO_TEXT command = mem_print("rm -rf '%s'", directory);

    (void)state;
    return chdir("/") < 0 || system(command) != 0 ? -1 : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_groups),   cmocka_unit_test(test_jobs),     cmocka_unit_test(test_integers),
        cmocka_unit_test(test_schedule), cmocka_unit_test(test_include),  cmocka_unit_test(test_unreadable),
        cmocka_unit_test(test_conninfo), cmocka_unit_test(test_password), cmocka_unit_test(test_example),
        cmocka_unit_test(test_values),   cmocka_unit_test(test_damage),   cmocka_unit_test(test_encoding),
    };

    return cmocka_run_group_tests(tests, enter, leave);
}
