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

int config_restore(struct config *c, const struct config_line *saved, size_t n, int argc,
                   char **argv, char *err, size_t err_size)
{
    struct config given;
    struct parser now = {.c = &given, .err = err, .err_size = err_size};
    struct parser then = {.c = c, .err = err, .err_size = err_size};
    int r;

    config_defaults(&given);
    r = parser_run(&now, argc, argv);
    if (!r && !given.help && !given.dump_options)
        r = refuse(&now);
    if (r)
        return r;
    config_defaults(c);
    for (size_t i = 0; i < n && !r; i++) {
        const struct option_row *o = parser_find(saved[i].name, strlen(saved[i].name));

        if (!o || !is_saved(o))
            return parser_fail(&then, "it has an option '%.40s' that this version does not know",
                               saved[i].name);
        if (!now.given[o - config_options])
            r = parser_set(&then, o, o->name, saved[i].value);
    }
    for (size_t i = 0; i < config_n_options && !r; i++) {
        const struct option_row *o = &config_options[i];

        if (o->saved == OPTION_EACH_RUN || now.given[i])
            memcpy((u8 *)c + o->field, (const u8 *)&given + o->field, field_size(o));
    }
    c->disk_anew = given.disk.n != 0;
    return r;
}
