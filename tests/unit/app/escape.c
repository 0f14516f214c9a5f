/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "escape.h"
#include "test.h"

static struct escape e;
static u8 out[64];
static size_t used, n_out;

static enum escape_action feed(const char *text)
{
    return escape_filter(&e, (const u8 *)text, strlen(text), &used, out, &n_out);
}

static int setup(void **state)
{
    (void)state;
    memset(&e, 0, sizeof(e));
    return 0;
}

static void escape__passes_plain_bytes(void **state)
{
    (void)state;
    assert_int_equal(feed("ls\r\x03"), ESCAPE_NONE);
    assert_int_equal(n_out, 4);
    assert_memory_equal(out, "ls\r\x03", 4);
}

static void escape__quits_and_leaves_the_rest(void **state)
{
    (void)state;
    assert_int_equal(feed("ab\x01xcd"), ESCAPE_QUIT);
    assert_int_equal(used, 4);
    assert_int_equal(n_out, 2);
}

static void escape__is_seen_across_reads(void **state)
{
    (void)state;
    assert_int_equal(feed("\x01"), ESCAPE_NONE);
    assert_int_equal(n_out, 0);
    assert_int_equal(feed("h"), ESCAPE_HELP);
    assert_int_equal(feed("x"), ESCAPE_NONE);
    assert_int_equal(n_out, 1);
}

static void escape__sends_itself_when_doubled(void **state)
{
    (void)state;
    assert_int_equal(feed("\x01\x01x"), ESCAPE_NONE);
    assert_int_equal(n_out, 2);
    assert_memory_equal(out, "\x01x", 2);
}

static void escape__detaches(void **state)
{
    (void)state;
    assert_int_equal(feed("ab\x01"
                          "dxyz"),
                     ESCAPE_DETACH);
    assert_int_equal(used, 4);
    assert_int_equal(n_out, 2);
}

static void escape__forgets_unknown_keys(void **state)
{
    (void)state;
    assert_int_equal(feed("\x01zq"), ESCAPE_NONE);
    assert_int_equal(n_out, 1);
    assert_int_equal(out[0], 'q');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(escape__passes_plain_bytes, setup),
        cmocka_unit_test_setup(escape__quits_and_leaves_the_rest, setup),
        cmocka_unit_test_setup(escape__is_seen_across_reads, setup),
        cmocka_unit_test_setup(escape__sends_itself_when_doubled, setup),
        cmocka_unit_test_setup(escape__detaches, setup),
        cmocka_unit_test_setup(escape__forgets_unknown_keys, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
