/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "debug/gdb/packet.h"

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static char hex_digit(unsigned v)
{
    return "0123456789abcdef"[v & 15];
}

static void store(struct gdb_parser *p, u8 byte)
{
    if (p->len == GDB_PACKET_MAX)
        p->too_long = true;
    else
        p->data[p->len++] = (char)byte;
}

static void begin(struct gdb_parser *p)
{
    p->state = GDB_DATA;
    p->sum = 0;
    p->too_long = false;
    p->len = 0;
}

static enum gdb_event idle(struct gdb_parser *p, u8 byte)
{
    switch (byte) {
    case '$':
        begin(p);
        return GDB_NOTHING;
    case 3:
        return GDB_INTERRUPT;
    case '+':
        return GDB_ACK;
    case '-':
        return GDB_NAK;
    default: /* noise between packets is ignored */
        return GDB_NOTHING;
    }
}

enum gdb_event gdb_parse(struct gdb_parser *p, u8 byte)
{
    int digit;

    switch (p->state) {
    case GDB_IDLE:
        return idle(p, byte);
    case GDB_DATA:
        if (byte == '$') { /* the packet before it was cut off */
            begin(p);
        } else if (byte == '#') {
            p->state = GDB_SUM1;
        } else {
            p->sum = (u8)(p->sum + byte);
            if (byte == '}')
                p->state = GDB_ESCAPE;
            else
                store(p, byte);
        }
        return GDB_NOTHING;
    case GDB_ESCAPE:
        p->sum = (u8)(p->sum + byte);
        store(p, byte ^ 0x20);
        p->state = GDB_DATA;
        return GDB_NOTHING;
    case GDB_SUM1:
    case GDB_SUM2:
        digit = hex_value((char)byte);
        if (digit < 0) {
            p->state = GDB_IDLE;
            return GDB_BAD;
        }
        p->told = (u8)(p->told << 4 | digit);
        if (p->state == GDB_SUM1) {
            p->state = GDB_SUM2;
            return GDB_NOTHING;
        }
        p->state = GDB_IDLE;
        p->data[p->len] = 0;
        return p->told == p->sum && !p->too_long ? GDB_PACKET : GDB_BAD;
    }
    return GDB_NOTHING;
}

void gdb_out_begin(struct gdb_out *o)
{
    o->len = 0;
    o->full = false;
    o->frame[0] = '$';
}

void gdb_out_char(struct gdb_out *o, char c)
{
    if (o->len == GDB_PACKET_MAX)
        o->full = true;
    else
        o->frame[1 + o->len++] = c;
}

void gdb_out_text(struct gdb_out *o, const char *s)
{
    while (*s)
        gdb_out_char(o, *s++);
}

void gdb_out_hex(struct gdb_out *o, const void *buf, size_t n)
{
    const u8 *b = buf;

    for (size_t i = 0; i < n; i++) {
        gdb_out_char(o, hex_digit(b[i] >> 4));
        gdb_out_char(o, hex_digit(b[i]));
    }
}

void gdb_out_number(struct gdb_out *o, u64 v)
{
    unsigned shift = 60;

    while (shift && !(v >> shift))
        shift -= 4;
    for (;; shift -= 4) {
        gdb_out_char(o, hex_digit((unsigned)(v >> shift)));
        if (!shift)
            break;
    }
}

void gdb_out_binary(struct gdb_out *o, const void *buf, size_t n)
{
    const char *b = buf;

    for (size_t i = 0; i < n; i++) {
        bool special = b[i] == '#' || b[i] == '$' || b[i] == '}' || b[i] == '*';

        if (special)
            gdb_out_char(o, '}');
        gdb_out_char(o, special ? b[i] ^ 0x20 : b[i]);
    }
}

size_t gdb_out_room(const struct gdb_out *o)
{
    return GDB_PACKET_MAX - o->len;
}

size_t gdb_out_end(struct gdb_out *o)
{
    u8 sum = 0;

    for (size_t i = 0; i < o->len; i++)
        sum = (u8)(sum + (u8)o->frame[1 + i]);
    o->frame[1 + o->len] = '#';
    o->frame[2 + o->len] = hex_digit(sum >> 4);
    o->frame[3 + o->len] = hex_digit(sum);
    return o->len + 4;
}

bool gdb_number(const char **at, u64 *v)
{
    const char *s = *at;
    u64 n = 0;
    int d;

    for (; (d = hex_value(*s)) >= 0; s++) {
        if (n >> 60)
            return false;
        n = n << 4 | (u64)d;
    }
    if (s == *at)
        return false;
    *at = s;
    *v = n;
    return true;
}

bool gdb_bytes(const char **at, void *buf, size_t n)
{
    const char *s = *at;
    u8 *b = buf;

    for (size_t i = 0; i < n; i++, s += 2) {
        int hi = hex_value(s[0]), lo = hi < 0 ? -1 : hex_value(s[1]);

        if (lo < 0)
            return false;
        b[i] = (u8)(hi << 4 | lo);
    }
    *at = s;
    return true;
}

bool gdb_literal(const char **at, const char *text)
{
    size_t n = strlen(text);

    if (strncmp(*at, text, n) != 0)
        return false;
    *at += n;
    return true;
}
