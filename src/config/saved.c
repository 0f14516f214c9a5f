/* SPDX-License-Identifier: Apache-2.0 */
/* The options of a machine that is saved and restored. */
#include <errno.h>
#include <string.h>

#include "config/parse.h"

static bool is_saved(const struct option_row *o)
{
    return o->saved == OPTION_MACHINE || o->saved == OPTION_BEHIND;
}

void config_save(const struct config *c,
                 void (*line)(void *opaque, const char *name, const char *value), void *opaque)
{
    for (size_t i = 0; i < config_n_options; i++) {
        const struct option_row *o = &config_options[i];
        const u8 *field = (const u8 *)c + o->field;
        const struct config_list *list = (const struct config_list *)(const void *)field;
        char number[32];

        if (!is_saved(o))
            continue;
        switch (o->type) {
        case OPTION_FLAG:
            if (*(const bool *)field)
                line(opaque, o->name, "");
            break;
        case OPTION_NUMBER:
            snprintf(number, sizeof(number), "%llu",
                     (unsigned long long)*(const u64 *)(const void *)field);
            line(opaque, o->name, number);
            break;
        case OPTION_MEMORY:
            snprintf(number, sizeof(number), "%lluK",
                     (unsigned long long)*(const u64 *)(const void *)field >> 10);
            line(opaque, o->name, number);
            break;
        case OPTION_STRING:
        case OPTION_CHOICE:
            if (*(const char *const *)(const void *)field)
                line(opaque, o->name, *(const char *const *)(const void *)field);
            break;
        case OPTION_LIST:
            for (unsigned n = 0; n < list->n; n++)
                line(opaque, o->name, list->item[n]);
            break;
        }
    }
}

static size_t field_size(const struct option_row *o)
{
    switch (o->type) {
    case OPTION_FLAG:
        return sizeof(bool);
    case OPTION_NUMBER:
    case OPTION_MEMORY:
        return sizeof(u64);
    case OPTION_STRING:
    case OPTION_CHOICE:
        return sizeof(const char *);
    case OPTION_LIST:
        return sizeof(struct config_list);
    }
    return 0;
}

/* Of what was given: nothing that makes another machine. */
static int refuse(struct parser *p)
{
    if (p->image)
        return parser_fail(p, "unexpected argument '%s'", p->image);
    if (p->c->command)
        return parser_fail(p,
                           "a command is given when its machine starts, not when it is restored");
    for (size_t i = 0; i < config_n_options; i++) {
        const struct option_row *o = &config_options[i];

        if (!p->given[i])
            continue;
        if (o->saved == OPTION_MACHINE)
            return parser_fail(p, "--%s: a restored machine has what it was saved with", o->name);
        if (o->saved == OPTION_START)
            return parser_fail(p, "--%s: a restored machine has started already", o->name);
    }
    return 0;
}

/* --- what a file says, which is anybody's --- */

/* Also of a terminal: it is shown to people. C0 and C1 controls, as bytes and as UTF-8. */
static bool is_text(const char *s)
{
    for (; *s; s++) {
        u8 c = (u8)s[0], next = (u8)s[1];

        if (c < ' ' || c == 0x7f || (c == 0xc2 && next >= 0x80 && next < 0xa0))
            return false;
    }
    return true;
}

/* What a shell takes as it is: somebody may paste it there. Other text it takes in quotes. */
static bool is_word(const char *s)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_./:,=@%+-";

    return !s[strspn(s, plain)];
}

/* Text that grows up to size; what is too much is cut. */
struct list {
    char *text;
    size_t size, len;
};

static void add(struct list *l, const char *between, const char *dashes, const char *name,
                const char *value)
{
    if (l->len < l->size)
        l->len += (size_t)snprintf(l->text + l->len, l->size - l->len, "%s%s%s %s",
                                   l->len ? between : "", dashes, name, value);
}

/* One saved line. *refused: options that are to be given again. */
static int take_line(struct parser *p, const struct config_line *line, const bool *given,
                     struct list *taken, struct list *refused)
{
    const struct option_row *o = parser_find(line->name, strlen(line->name));

    if (!o || !is_saved(o))
        return parser_fail(p, "it has an option '%.40s' that this version does not know",
                           is_text(line->name) ? line->name : "?");
    if (given[o - config_options])
        return 0;
    if (!is_text(line->value))
        return parser_fail(p, "--%s: it is saved with what is no text; give it again", o->name);
    if (o->of_host && o->of_host(line->value)) {
        char quoted[200];
        int n = snprintf(quoted, sizeof(quoted), "'%s'", line->value);
        bool whole = n < (int)sizeof(quoted) && !strchr(line->value, '\'');

        add(refused, ", ", "--", o->name,
            is_word(line->value) ? line->value
            : whole              ? quoted
                                 : "?");
        return 0;
    }
    if (o->saved == OPTION_BEHIND && o->type == OPTION_LIST)
        add(taken, ", ", "", o->name, line->value);
    return parser_set(p, o, o->name, line->value);
}

/* Whether one of the networks is one that ports are published with. */
static bool has_user(const struct config_list *nets)
{
    for (unsigned i = 0; i < nets->n; i++)
        if (!strncmp(nets->item[i], "user", 4))
            return true;
    return false;
}

static size_t row_of(const char *name)
{
    return (size_t)(parser_find(name, strlen(name)) - config_options);
}

int config_restore(struct config *c, const struct config_line *saved, size_t n, int argc,
                   char **argv, char *taken_text, size_t taken_size, char *err, size_t err_size)
{
    char refused_text[300] = "";
    struct list taken = {.text = taken_text, .size = taken_size};
    struct list refused = {.text = refused_text, .size = sizeof(refused_text)};
    struct config given;
    struct parser now = {.c = &given, .err = err, .err_size = err_size};
    struct parser then = {.c = c, .err = err, .err_size = err_size};
    int r;

    if (taken_size)
        taken_text[0] = 0;
    config_defaults(&given);
    r = parser_run(&now, argc, argv);
    if (!r && !given.help && !given.dump_options)
        r = refuse(&now);
    if (r)
        return r;
    config_defaults(c);
    if (now.given[row_of("net")] && !given.publish.n && !has_user(&given.net))
        now.given[row_of("publish")] = true; /* there is nothing they could go with: none */
    for (size_t i = 0; i < n && !r; i++)
        r = take_line(&then, &saved[i], now.given, &taken, &refused);
    if (!r && refused.len)
        return parser_fail(&then,
                           "its options name files of this host, which are not taken from it but "
                           "to be given again, as they were or otherwise: %s",
                           refused_text);
    for (size_t i = 0; i < config_n_options && !r; i++) {
        const struct option_row *o = &config_options[i];

        if (o->saved == OPTION_EACH_RUN || now.given[i])
            memcpy((u8 *)c + o->field, (const u8 *)&given + o->field, field_size(o));
    }
    c->disk_anew = given.disk.n != 0;
    return r;
}
