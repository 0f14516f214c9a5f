/* SPDX-License-Identifier: Apache-2.0 */
/* A serial port whose other end holds back: nothing is lost, THR is not empty meanwhile. */
#include <string.h>

#include "dev/chipset/uart.h"
#include "fake_host.h"
#include "test.h"

#define THR UART_COM2
#define IER (UART_COM2 + 1)
#define IIR (UART_COM2 + 2)
#define MCR (UART_COM2 + 4)
#define LSR (UART_COM2 + 5)
#define THRE 0x20
#define IIR_THRI 0x02

static struct machine *m;
static struct probe irq;
static char got[1024];
static size_t n_got, room;

static size_t take(struct chardev *c, const u8 *buf, size_t n)
{
    (void)c;
    if (n > room)
        n = room;
    memcpy(got + n_got, buf, n);
    n_got += n;
    room -= n;
    return n;
}

static struct chardev chr = {.write = take, .holds = true};

static int setup(void **state)
{
    struct uart_config cfg = {.base = UART_COM2, .irq = probe_line(&irq), .chr = &chr};

    (void)state;
    m = machine_new(1);
    irq = (struct probe){0};
    n_got = room = 0;
    return uart_create(&m->vm, &cfg) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    machine_free(m);
    return 0;
}

static void uart__holds_the_guest_back(void **state)
{
    char sent[160];
    size_t n = 0;

    (void)state;
    outb(m, MCR, 0x0b);
    outb(m, IER, 0x02);
    inb(m, IIR);
    while ((inb(m, LSR) & THRE) && n < sizeof(sent)) {
        /* As drivers do: a FIFO full after one look. */
        for (int i = 0; i < 16; i++) {
            sent[n] = (char)('A' + n % 50);
            outb(m, THR, (u8)sent[n++]);
        }
    }
    assert_in_range(n, 64, 96);
    assert_int_equal(n_got, 0);
    inb(m, IIR);
    assert_false(irq.level);
    room = 10;
    chr.on_writable(chr.dev);
    assert_int_equal(n_got, 10);
    assert_false(inb(m, LSR) & THRE);
    assert_false(irq.level);
    room = 1000;
    chr.on_writable(chr.dev);
    assert_true(inb(m, LSR) & THRE);
    assert_true(irq.level);
    assert_int_equal(inb(m, IIR) & 0x0f, IIR_THRI);
    assert_int_equal(n_got, n);
    assert_memory_equal(got, sent, n);
}

static void uart__survives_a_guest_that_does_not_look(void **state)
{
    (void)state;
    for (int i = 0; i < 1000; i++)
        outb(m, THR, 'x');
    room = 1000;
    chr.on_writable(chr.dev);
    assert_in_range(n_got, 64, 80);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(uart__holds_the_guest_back, setup, teardown),
        cmocka_unit_test_setup_teardown(uart__survives_a_guest_that_does_not_look, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
