/* SPDX-License-Identifier: Apache-2.0 */
/* From the text of a --disk option to a block_spec. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/block/block.h"
#include "base/commas.h"

struct spec_parser {
    struct block_spec *spec;
    char *err;
    size_t err_size;
};

static int refuse(struct spec_parser *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static int refuse(struct spec_parser *p, const char *fmt, ...)
{
    int n = snprintf(p->err, p->err_size, "disk %s: ", p->spec->path);
    va_list ap;

    va_start(ap, fmt);
    if (n > 0 && (size_t)n < p->err_size)
        vsnprintf(p->err + n, p->err_size - (size_t)n, fmt, ap);
    va_end(ap);
    return -EINVAL;
}

static int set_choice(struct spec_parser *p, const char *key, const char *value, const char *zero,
                      const char *one, bool *out)
{
    if (strcmp(value, zero) != 0 && strcmp(value, one) != 0)
        return refuse(p, "%s=%s: it is %s or %s", key, value, zero, one);
    *out = !strcmp(value, one);
    return 0;
}

static int set_format(struct spec_parser *p, const char *value)
{
    if (!strcmp(value, "raw"))
        p->spec->format = BLOCK_FORMAT_RAW;
    else if (!strcmp(value, "qcow2"))
        p->spec->format = BLOCK_FORMAT_QCOW2;
    else
        return refuse(p, "format=%s: it is raw or qcow2", value);
    return 0;
}

static int set_id(struct spec_parser *p, const char *value)
{
    size_t n = strlen(value);

    if (!n || n > BLOCK_ID_MAX)
        return refuse(p, "id=%s: it has 1 to %d characters", value, BLOCK_ID_MAX);
    for (const char *s = value; *s; s++)
        if (!(*s >= 'a' && *s <= 'z') && !(*s >= 'A' && *s <= 'Z') && !(*s >= '0' && *s <= '9') &&
            !strchr("-_.", *s))
            return refuse(p, "id=%s: it is made of letters, digits and - _ .", value);
    memcpy(p->spec->id, value, n + 1);
    return 0;
}

static int set_serial(struct spec_parser *p, const char *value)
{
    size_t n = strlen(value);

    if (!n || n > BLOCK_SERIAL_MAX)
        return refuse(p, "serial=%s: it has 1 to %d characters", value, BLOCK_SERIAL_MAX);
    for (const char *s = value; *s; s++)
        if (*s < ' ' || *s > '~')
            return refuse(p, "serial=: it has a character that is not printable ASCII");
    memcpy(p->spec->serial, value, n + 1);
    return 0;
}

static int set_queues(struct spec_parser *p, const char *value)
{
    unsigned v = 0;
    const char *s = value;

    for (; *s >= '0' && *s <= '9' && v <= BLOCK_QUEUES_MAX; s++)
        v = v * 10 + (unsigned)(*s - '0');
    if (*s || s == value || v < 1 || v > BLOCK_QUEUES_MAX)
        return refuse(p, "queues=%s: it is 1 to %d", value, BLOCK_QUEUES_MAX);
    p->spec->queues = v;
    return 0;
}

static int set_key(struct spec_parser *p, char *item)
{
    char *value = commas_value(item);

    if (!strcmp(item, "ro")) {
        if (value)
            return refuse(p, "ro takes no value");
        p->spec->readonly = true;
        return 0;
    }
    static const char *const keys[] = {"format",  "id",     "serial",   "cache",
                                       "discard", "queues", "doorbell", "irqfd"};
    size_t k = 0;

    while (k < ARRAY_SIZE(keys) && strcmp(item, keys[k]) != 0)
        k++;
    if (k == ARRAY_SIZE(keys))
        return refuse(p,
                      "unknown key '%s'; there are format= ro id= serial= cache= discard= "
                      "queues= doorbell= irqfd=, and a comma in a path is written twice",
                      item);
    if (!value)
        return refuse(p, "%s needs a value", item);
    switch (k) {
    case 0:
        return set_format(p, value);
    case 1:
        return set_id(p, value);
    case 2:
        return set_serial(p, value);
    case 3:
        if (!strcmp(value, "none") || !strcmp(value, "directsync") ||
            !strcmp(value, "writethrough"))
            return refuse(p, "cache=%s is not built; there are writeback and unsafe", value);
        return set_choice(p, item, value, "writeback", "unsafe", &p->spec->unsafe);
    case 4:
        return set_choice(p, item, value, "on", "off", &p->spec->no_discard);
    case 5:
        return set_queues(p, value);
    case 6:
        return set_choice(p, item, value, "on", "off", &p->spec->no_doorbell);
    default:
        return set_choice(p, item, value, "on", "off", &p->spec->no_irqfd);
    }
}

int block_spec_parse(const char *text, struct block_spec *spec, char *err, size_t err_size)
{
    struct spec_parser p = {.spec = spec, .err = err, .err_size = err_size};
    char item[256];
    int n, r;

    memset(spec, 0, sizeof(*spec));
    n = commas_next(&text, spec->path, sizeof(spec->path));
    if (n <= 0) {
        spec->path[0] = 0;
        snprintf(err, err_size, n == 0 ? "disk: no path" : "disk: the path is too long");
        return -EINVAL;
    }
    while ((n = commas_next(&text, item, sizeof(item))) != COMMAS_END) {
        if (n == COMMAS_TOO_LONG)
            return refuse(&p, "a value is longer than 255 characters");
        r = set_key(&p, item);
        if (r)
            return r;
    }
    return 0;
}

char *block_spec_from(const char *text, const char *dir)
{
    char *out = malloc(2 * strlen(dir) + strlen(text) + 2), *to = out;

    if (!out)
        return NULL;
    if (text[0] != '/') {
        for (; *dir; dir++) {
            *to++ = *dir;
            if (*dir == ',')
                *to++ = ',';
        }
        *to++ = '/';
    }
    strcpy(to, text);
    return out;
}
