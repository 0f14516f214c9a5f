/* SPDX-License-Identifier: Apache-2.0 */
/* Framing, checksums, escapes and the text in packets. */
#include <stdio.h>
#include <string.h>

#include "debug/gdb/packet.h"
#include "test.h"

static struct gdb_parser p;
static struct gdb_out o;

/* Feeds text; the event its last byte completes, all before must complete none. */
static enum gdb_event feed(const char *text, size_t n)
{
    for (size_t i = 0; i + 1 < n; i++)
        assert_int_equal(gdb_parse(&p, (u8)text[i]), GDB_NOTHING);
    return gdb_parse(&p, (u8)text[n - 1]);
}

static enum gdb_event feed_text(const char *text)
{
    return feed(text, strlen(text));
}

static void parse__packets(void **state)
{
    (void)state;
    memset(&p, 0, sizeof(p));
    assert_int_equal(feed_text("$g#67"), GDB_PACKET);
    assert_string_equal(p.data, "g");
    assert_int_equal(feed_text("$#00"), GDB_PACKET);
    assert_int_equal(p.len, 0);
    assert_int_equal(feed_text("+"), GDB_ACK);
    assert_int_equal(feed_text("-"), GDB_NAK);
    assert_int_equal(feed_text("\x03"), GDB_INTERRUPT);
    assert_int_equal(feed_text("noise $qC#B4"), GDB_PACKET);
    assert_string_equal(p.data, "qC");
    /* The interrupt byte inside a packet is data; so is + there. */
    assert_int_equal(feed("$\x03+#2e", 6), GDB_PACKET);
    assert_memory_equal(p.data, "\x03+", 3);
    /* A packet cut off by the next one. */
    assert_int_equal(feed_text("$abc$g#67"), GDB_PACKET);
    assert_string_equal(p.data, "g");
}

static void parse__bad_packets(void **state)
{
    (void)state;
    memset(&p, 0, sizeof(p));
    assert_int_equal(feed_text("$g#68"), GDB_BAD);
    assert_int_equal(feed_text("$g#x"), GDB_BAD);
    assert_int_equal(feed_text("$g#6/"), GDB_BAD);
    assert_int_equal(feed_text("$g#67"), GDB_PACKET);
}

static void parse__bounded(void **state)
{
    u8 sum = 0;
    char tail[4];

    (void)state;
    memset(&p, 0, sizeof(p));
    for (unsigned extra = 0; extra < 2; extra++) {
        sum = 0;
        gdb_parse(&p, '$');
        for (unsigned i = 0; i < GDB_PACKET_MAX + extra; i++) {
            gdb_parse(&p, 'a');
            sum = (u8)(sum + 'a');
        }
        snprintf(tail, sizeof(tail), "#%02x", sum);
        assert_int_equal(feed_text(tail), extra ? GDB_BAD : GDB_PACKET);
    }
}

static void escapes__both_ways(void **state)
{
    static const char all[] = "a#b$c}d*e";

    (void)state;
    memset(&p, 0, sizeof(p));
    gdb_out_begin(&o);
    gdb_out_binary(&o, all, sizeof(all)); /* with its 0 */
    assert_int_equal(o.len, sizeof(all) + 4);
    assert_int_equal(feed(o.frame, gdb_out_end(&o)), GDB_PACKET);
    assert_int_equal(p.len, sizeof(all));
    assert_memory_equal(p.data, all, sizeof(all));
}

static void out__formats(void **state)
{
    static const u8 bytes[] = {0x00, 0x7f, 0xff};

    (void)state;
    gdb_out_begin(&o);
    gdb_out_text(&o, "T05");
    gdb_out_hex(&o, bytes, sizeof(bytes));
    gdb_out_char(&o, ';');
    gdb_out_number(&o, 0);
    gdb_out_char(&o, ';');
    gdb_out_number(&o, 0x10);
    gdb_out_char(&o, ';');
    gdb_out_number(&o, ~(u64)0);
    assert_int_equal(gdb_out_end(&o), 4 + 3 + 6 + 1 + 1 + 1 + 2 + 1 + 16);
    assert_memory_equal(o.frame, "$T05007fff;0;10;ffffffffffffffff#", 33);
    assert_false(o.full);
    for (unsigned i = 0; i < GDB_PACKET_MAX; i++)
        gdb_out_char(&o, 'x');
    assert_true(o.full);
    assert_int_equal(gdb_out_room(&o), 0);
    assert_int_equal(gdb_out_end(&o), GDB_PACKET_MAX + 4);
}

static void text__numbers(void **state)
{
    const char *at = "1f,rest";
    u64 v;
    u8 b[2];

    (void)state;
    assert_true(gdb_number(&at, &v));
    assert_int_equal(v, 0x1f);
    assert_string_equal(at, ",rest");
    assert_false(gdb_number(&at, &v));
    assert_true(gdb_literal(&at, ","));
    assert_false(gdb_literal(&at, "x"));
    at = "ffffffffffffffff";
    assert_true(gdb_number(&at, &v));
    assert_true(v == ~(u64)0);
    at = "10000000000000000";
    assert_false(gdb_number(&at, &v));
    at = "0AfF1";
    assert_true(gdb_bytes(&at, b, 2));
    assert_int_equal(b[0], 0x0a);
    assert_int_equal(b[1], 0xff);
    assert_false(gdb_bytes(&at, b, 1));
    at = "1g";
    assert_false(gdb_bytes(&at, b, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parse__packets), cmocka_unit_test(parse__bad_packets),
        cmocka_unit_test(parse__bounded), cmocka_unit_test(escapes__both_ways),
        cmocka_unit_test(out__formats),   cmocka_unit_test(text__numbers),
    };
    return cmocka_run_group_tests_name("debug-packet", tests, NULL, NULL);
}
