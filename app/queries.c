/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "queries.h"

enum { GROUND, ESCAPE, SEQUENCE, STRING, STRING_ESCAPE };

#define ENQ 5
#define BEL 7
#define ESC 27

static size_t flush(struct queries *q, u8 *out)
{
    size_t n = q->n;

    memcpy(out, q->held, n);
    q->n = 0;
    return n;
}

static bool held_has(const struct queries *q, u8 c)
{
    return memchr(q->held, c, q->n) != NULL;
}

/* Whether a terminal answers the held sequence with this final byte. */
static bool is_query(const struct queries *q, u8 final)
{
    switch (final) {
    case 'n': /* DSR */
    case 'c': /* DA */
    case 't': /* XTWINOPS: reports among others */
    case 'x': /* DECREQTPARM */
        return true;
    case 'p': /* DECRQM */
        return held_has(q, '$');
    case 'q': /* XTVERSION */
        return held_has(q, '>');
    case 'u': /* keyboard protocol */
        return held_has(q, '?');
    default:
        return false;
    }
}

static size_t in_sequence(struct queries *q, u8 c, u8 *out)
{
    size_t n = 0;

    if (c >= 0x20 && c < 0x40 && q->n < QUERIES_HELD_MAX) {
        q->held[q->n++] = c;
        return 0;
    }
    q->state = GROUND;
    if (c >= 0x40 && c < 0x7f && is_query(q, c)) {
        q->n = 0;
        return 0;
    }
    n = flush(q, out);
    out[n++] = c;
    return n;
}

static size_t after_escape(struct queries *q, u8 c, u8 *out)
{
    size_t n;

    switch (c) {
    case '[':
        q->state = SEQUENCE;
        q->held[q->n++] = c;
        return 0;
    case ']':
    case 'P':
    case '_':
    case '^':
    case 'X':
        q->state = STRING;
        q->n = 0;
        return 0;
    case 'Z': /* DECID */
        q->state = GROUND;
        q->n = 0;
        return 0;
    default:
        q->state = GROUND;
        n = flush(q, out);
        out[n++] = c;
        return n;
    }
}

/* One byte in, at most QUERIES_HELD_MAX + 1 out. */
static size_t step(struct queries *q, u8 c, u8 *out)
{
    if (c == ESC && q->state < STRING) {
        size_t n = flush(q, out);

        q->state = ESCAPE;
        q->held[q->n++] = c;
        return n;
    }
    switch (q->state) {
    case ESCAPE:
        return after_escape(q, c, out);
    case SEQUENCE:
        return in_sequence(q, c, out);
    case STRING:
        /* A line end is in no string a terminal would act on: noise is not swallowed for ever. */
        q->state = c == ESC ? STRING_ESCAPE : c == BEL || c == '\n' ? GROUND : STRING;
        return 0;
    case STRING_ESCAPE:
        q->state = c == '\\' || c == '\n' ? GROUND : STRING;
        return 0;
    default:
        if (c == ENQ)
            return 0;
        *out = c;
        return 1;
    }
}

size_t queries_strip(struct queries *q, const u8 *in, size_t n, u8 *out)
{
    size_t total = 0;

    for (size_t i = 0; i < n; i++)
        total += step(q, in[i], out + total);
    return total;
}

size_t queries_end(struct queries *q, u8 *out)
{
    q->state = GROUND;
    return flush(q, out);
}
