/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "backend/char/replay.h"
#include "test.h"

static struct replay r;

static int setup(void **state)
{
    (void)state;
    return replay_init(&r, 16);
}

static int teardown(void **state)
{
    (void)state;
    replay_free(&r);
    return 0;
}

static void add(const char *text)
{
    replay_add(&r, (const u8 *)text, strlen(text));
}

/* What a reader at pos sees. */
static const char *from(u64 pos)
{
    static char text[64];
    struct host_iov iov[2];
    unsigned n_iov;
    size_t at = 0, n = replay_peek(&r, pos, sizeof(text) - 1, iov, &n_iov);

    for (unsigned i = 0; i < n_iov; i++) {
        memcpy(text + at, iov[i].base, iov[i].len);
        at += iov[i].len;
    }
    assert_int_equal(at, n);
    text[at] = 0;
    return text;
}

static void replay__keeps_the_last_bytes(void **state)
{
    (void)state;
    add("0123456789");
    assert_int_equal(replay_start(&r), 0);
    assert_string_equal(from(0), "0123456789");
    assert_string_equal(from(7), "789");
    assert_string_equal(from(10), "");
    add("abcdefghij");
    assert_int_equal(r.end, 20);
    assert_int_equal(replay_start(&r), 4);
    assert_string_equal(from(4), "456789abcdefghij");
    assert_string_equal(from(19), "j");
}

static void replay__takes_more_than_it_keeps(void **state)
{
    (void)state;
    add("x");
    add("0123456789abcdefghijklmnopqrstuvwxyz");
    assert_int_equal(r.end, 37);
    assert_string_equal(from(replay_start(&r)), "klmnopqrstuvwxyz");
}

static void replay__gives_at_most_what_is_asked_for(void **state)
{
    struct host_iov iov[2];
    unsigned n;

    (void)state;
    add("0123456789abcdefgh"); /* gh are at the ring's beginning */
    assert_int_equal(replay_peek(&r, 2, 3, iov, &n), 3);
    assert_int_equal(n, 1);
    assert_memory_equal(iov[0].base, "234", 3);
    assert_int_equal(replay_peek(&r, 14, 4, iov, &n), 4);
    assert_int_equal(n, 2);
}

static void replay__begins_with_a_line(void **state)
{
    (void)state;
    add("one\ntwo\n");
    assert_int_equal(replay_first_line(&r), 0);
    add("three\nfourth\n"); /* "one\n" is gone, "two\n" half */
    assert_string_equal(from(replay_first_line(&r)), "three\nfourth\n");
    add("a line longer than all");
    assert_int_equal(replay_first_line(&r), replay_start(&r));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(replay__keeps_the_last_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(replay__takes_more_than_it_keeps, setup, teardown),
        cmocka_unit_test_setup_teardown(replay__gives_at_most_what_is_asked_for, setup, teardown),
        cmocka_unit_test_setup_teardown(replay__begins_with_a_line, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
