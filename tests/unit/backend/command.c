/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor's half of the conversation with the guest's agent; a terminal and a port that record.
 */
#include <stdlib.h>
#include <string.h>

#include "backend/char/command.h"
#include "core/vm.h"
#include "proto/agent.h"
#include "test.h"

static struct vm vm;
static struct chardev terminal, *c;
static char shown[65536], to_guest[65536];
static size_t n_shown, n_to_guest, guest_room;

static size_t terminal_write(struct chardev *t, const u8 *buf, size_t n)
{
    (void)t;
    memcpy(shown + n_shown, buf, n);
    n_shown += n;
    shown[n_shown] = 0;
    return n;
}

static void terminal_close(struct chardev *t)
{
    (void)t;
}

static size_t port_input(void *dev, const u8 *buf, size_t n)
{
    (void)dev;
    if (n > guest_room)
        n = guest_room;
    memcpy(to_guest + n_to_guest, buf, n);
    n_to_guest += n;
    guest_room -= n;
    return n;
}

static int setup(void **state)
{
    char err[256];

    (void)state;
    memset(&vm, 0, sizeof(vm));
    host_mutex_init(&vm.lock);
    terminal = (struct chardev){.write = terminal_write, .close = terminal_close};
    n_shown = n_to_guest = 0;
    guest_room = sizeof(to_guest);
    c = command_open(&vm, &terminal, err, sizeof(err));
    if (c)
        c->on_input = port_input;
    return c ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    c->close(c);
    return 0;
}

/* Sends bytes of the guest's in pieces of the given size. */
static void guest_sends(const void *data, size_t n, size_t piece)
{
    for (size_t at = 0; at < n; at += piece) {
        size_t m = n - at < piece ? n - at : piece;

        assert_int_equal(c->write(c, (const u8 *)data + at, m), m);
    }
}

#define SEND(text) guest_sends(text, sizeof(text) - 1, sizeof(text))

static void command__hears_a_conversation_cut_anywhere(void **state)
{
    static const char text[] = "noise \001tri\001\001triv" AGENT_GREETING "o\5\0hello"
                               "e\3\0err"
                               "?\2\0??"
                               "o\0\0"
                               "o\1\0!"
                               "x\1\0\52"
                               "o\4\0late";
    int status;

    for (size_t piece = 1; piece < sizeof(text); piece++) {
        teardown(state);
        assert_int_equal(setup(state), 0);
        guest_sends(text, sizeof(text) - 1, piece);
        assert_string_equal(shown, "helloerr!");
        assert_true(command_ended(c, &status));
        assert_int_equal(status, 42);
        assert_int_equal(vm.stop_reason, VM_TEST_EXIT);
        assert_int_equal(vm.exit_code, 42);
    }
}

static void command__has_no_status_before_the_end(void **state)
{
    int status;

    (void)state;
    SEND(AGENT_GREETING "o\1\0x"
                        "x\2\0\1\1"
                        "x\0\0");
    assert_false(command_ended(c, &status));
    assert_int_equal(vm.stop_reason, VM_RUNNING);
}

static void command__types_only_to_who_is_there(void **state)
{
    (void)state;
    assert_int_equal(terminal.on_input(terminal.dev, (const u8 *)"early", 5), 0);
    SEND(AGENT_GREETING);
    assert_int_equal(terminal.on_input(terminal.dev, (const u8 *)"typed", 5), 5);
    c->kick_input(c);
    assert_int_equal(n_to_guest, 8);
    assert_memory_equal(to_guest, "i\5\0typed", 8);
}

static void command__keeps_to_its_credit(void **state)
{
    static u8 text[3 * AGENT_CREDIT_FIRST];
    size_t total = 0;

    (void)state;
    SEND(AGENT_GREETING);
    for (int i = 0; i < 10; i++) {
        total += terminal.on_input(terminal.dev, text, sizeof(text));
        c->kick_input(c);
    }
    assert_int_equal(total, AGENT_CREDIT_FIRST);
    SEND("c\2\0\144\0"); /* 100 */
    assert_int_equal(terminal.on_input(terminal.dev, text, sizeof(text)), 100);
    c->kick_input(c);
    /* Credit nobody has earned counts for nothing. */
    for (int i = 0; i < 10; i++)
        SEND("c\2\0\377\377");
    total = 0;
    for (int i = 0; i < 10; i++) {
        total += terminal.on_input(terminal.dev, text, sizeof(text));
        c->kick_input(c);
    }
    assert_int_equal(total, AGENT_CREDIT_FIRST);
}

static void command__waits_for_a_port_without_room(void **state)
{
    (void)state;
    SEND(AGENT_GREETING);
    guest_room = 4;
    assert_int_equal(terminal.on_input(terminal.dev, (const u8 *)"abc", 3), 3);
    c->kick_input(c);
    assert_int_equal(terminal.on_input(terminal.dev, (const u8 *)"def", 3), 0);
    terminal.on_resize(terminal.dev, 80, 0x119);
    guest_room = 100;
    c->kick_input(c);
    assert_int_equal(n_to_guest, 13);
    assert_memory_equal(to_guest, "i\3\0abcw\4\0\120\0\31\1", 13);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(command__hears_a_conversation_cut_anywhere, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(command__has_no_status_before_the_end, setup, teardown),
        cmocka_unit_test_setup_teardown(command__types_only_to_who_is_there, setup, teardown),
        cmocka_unit_test_setup_teardown(command__keeps_to_its_credit, setup, teardown),
        cmocka_unit_test_setup_teardown(command__waits_for_a_port_without_room, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
