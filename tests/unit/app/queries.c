/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "queries.h"
#include "test.h"

static struct queries q;
static u8 out[512];

static int setup(void **state)
{
    (void)state;
    memset(&q, 0, sizeof(q));
    return 0;
}

/* What is left of a text that comes in pieces of the given size. */
static const char *strip(const char *text, size_t piece)
{
    size_t total = 0, n = strlen(text);

    memset(&q, 0, sizeof(q));
    for (size_t at = 0; at < n; at += piece)
        total +=
            queries_strip(&q, (const u8 *)text + at, n - at < piece ? n - at : piece, out + total);
    total += queries_end(&q, out + total);
    out[total] = 0;
    return (const char *)out;
}

static void queries__are_removed(void **state)
{
    static const struct {
        const char *in, *left;
    } cases[] = {
        {"$ \033[6n", "$ "},                        /* where is the cursor */
        {"a\033[cb\033[>0cc\033[=cd", "abcd"},      /* what are you */
        {"\005x\033Zy", "xy"},                      /* ENQ, DECID */
        {"\033[?2026$pz", "z"},                     /* DECRQM */
        {"\033]11;?\007a\033]10;?\033\\b", "ab"},   /* colours */
        {"\033P$qm\033\\a\033[>qb\033[?uc", "abc"}, /* DECRQSS, XTVERSION, keyboard */
        {"\033[18t\033]0;title\007ok", "ok"},       /* window size */
        {"\033]never ended\nnext line", "next line"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        for (size_t piece = 1; piece < 8; piece++)
            assert_string_equal(strip(cases[i].in, piece), cases[i].left);
}

static void queries__leaves_everything_else(void **state)
{
    static const char *const texts[] = {
        "plain\r\n",
        "\033[1;31mred\033[0m",
        "\033[2J\033[H\033[?25l",
        "\0337\0338\033(B",
        "\033[4 q",
        "\033[!p",
        "caf\xc3\xa9",
        "\033[1;1H\033[K",
        "\033\033[1m",
        "\033[s\033[u",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        for (size_t piece = 1; piece < 8; piece++)
            assert_string_equal(strip(texts[i], piece), texts[i]);
}

static void queries__hold_back_a_bounded_number_of_bytes(void **state)
{
    char text[400] = "\033[";

    (void)state;
    memset(text + 2, '1', sizeof(text) - 3);
    assert_string_equal(strip(text, 100), text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(queries__are_removed, setup),
        cmocka_unit_test_setup(queries__leaves_everything_else, setup),
        cmocka_unit_test_setup(queries__hold_back_a_bounded_number_of_bytes, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
