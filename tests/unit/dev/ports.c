/* SPDX-License-Identifier: Apache-2.0 */
/* 16550A, and the small ports that end a VM. */
#include <errno.h>
#include <string.h>

#include "dev/chipset/debug_exit.h"
#include "dev/chipset/i8042.h"
#include "dev/chipset/ports.h"
#include "dev/chipset/pvpanic.h"
#include "dev/chipset/test_device.h"
#include "dev/chipset/uart.h"
#include "fake_host.h"
#include "test.h"

#define P 0x3f8

static struct machine *m;
static struct probe irq;

static struct console {
    struct chardev c;
    char out[256];
    size_t n, accepts;
    unsigned writes, kicks;
    const char *held; /* input not taken yet */
} con;

static size_t con_write(struct chardev *c, const u8 *buf, size_t n)
{
    (void)c;
    con.writes++;
    assert_true(con.n + n < sizeof(con.out));
    memcpy(con.out + con.n, buf, n);
    con.n += n;
    return n < con.accepts ? n : con.accepts;
}

static void offer(void)
{
    while (*con.held) {
        size_t taken = con.c.on_input(con.c.dev, (const u8 *)con.held, strlen(con.held));
        if (!taken)
            break;
        con.held += taken;
    }
}

static void con_kick(struct chardev *c)
{
    (void)c;
    con.kicks++;
    offer();
}

static void start(void)
{
    struct uart_config cfg = {.base = P, .irq = probe_line(&irq), .chr = &con.c};

    m = machine_new(1);
    irq = (struct probe){0};
    memset(&con, 0, sizeof(con));
    con.c.write = con_write;
    con.c.kick_input = con_kick;
    con.accepts = 1000;
    con.held = "";
    assert_non_null(uart_create(&m->vm, &cfg));
}

static void input(const char *text)
{
    con.held = text;
    offer();
}

static void uart__transmits_in_lines(void **state)
{
    (void)state;
    start();
    for (const char *p = "hello\nab"; *p; p++) {
        assert_int_equal(inb(m, P + 5) & 0x60, 0x60);
        outb(m, P, (u8)*p);
    }
    assert_string_equal(con.out, "hello\n");
    assert_int_equal(con.writes, 1);
    fake_advance(3000000);
    assert_string_equal(con.out, "hello\nab");
    for (unsigned i = 0; i < 64; i++)
        outb(m, P, 'x');
    assert_int_equal(con.n, 72);
    outb(m, P, 'y');
    machine_free(m); /* nothing is left behind */
    assert_int_equal(con.n, 73);
    assert_int_equal(con.out[72], 'y');
    assert_null(con.c.on_input);
}

static void uart__thre_interrupt(void **state)
{
    (void)state;
    start();
    assert_int_equal(inb(m, P + 2), 0x01);
    outb(m, P + 1, 0x02);
    assert_true(irq.level); /* THR is empty */
    assert_int_equal(inb(m, P + 2), 0x02);
    assert_false(irq.level); /* reading IIR ends it */
    assert_int_equal(inb(m, P + 2), 0x01);
    outb(m, P, 'a');
    assert_true(irq.level);
    outb(m, P + 4, 0x0b); /* OUT2 is no gate */
    assert_true(irq.level);
    outb(m, P + 4, 0x03);
    assert_true(irq.level);
    outb(m, P + 1, 0x00);
    assert_false(irq.level);
    outb(m, P + 1, 0x02);
    assert_true(irq.level);
    machine_free(m);
}

static void uart__receives(void **state)
{
    (void)state;
    start();
    outb(m, P + 4, 0x0b);
    outb(m, P + 1, 0x01);
    input("ab"); /* no FIFO: one at a time */
    assert_true(irq.level);
    assert_int_equal(inb(m, P + 2), 0x04);
    assert_int_equal(inb(m, P + 5) & 0x03, 0x01);
    assert_int_equal(inb(m, P), 'a');
    assert_int_equal(inb(m, P), 'b'); /* came with the kick */
    assert_int_equal(inb(m, P + 5) & 0x01, 0);
    assert_false(irq.level);

    outb(m, P + 2, 0x81); /* FIFO, trigger at 8 */
    assert_int_equal(inb(m, P + 2), 0xc1);
    input("0123456789abcdefghij");
    assert_int_equal(strlen(con.held), 4); /* back pressure, nothing lost */
    assert_int_equal(inb(m, P + 2), 0xc4);
    for (const char *p = "0123456789abcdefghij"; *p; p++) {
        assert_int_equal(inb(m, P + 5) & 0x03, 0x01);
        assert_int_equal(inb(m, P), *p);
    }
    assert_int_equal(inb(m, P + 5) & 0x1f, 0);
    assert_false(irq.level);
    machine_free(m);
}

static void uart__fifo_timeout(void **state)
{
    (void)state;
    start();
    outb(m, P + 4, 0x0b);
    outb(m, P + 1, 0x01);
    outb(m, P + 3, 0x83);
    outb(m, P, 1); /* 115200 */
    outb(m, P + 1, 0);
    outb(m, P + 3, 0x03);
    outb(m, P + 2, 0xc1); /* trigger at 14 */
    input("xyz");
    assert_false(irq.level);
    fake_advance(400000);
    assert_true(irq.level);
    assert_int_equal(inb(m, P + 2), 0xcc);
    assert_int_equal(inb(m, P), 'x');
    assert_false(irq.level); /* reading ends it until it times out again */
    fake_advance(400000);
    assert_true(irq.level);
    outb(m, P + 2, 0xc3); /* clear */
    assert_false(irq.level);
    assert_int_equal(inb(m, P + 5) & 1, 0);
    machine_free(m);
}

static void uart__loops_back(void **state)
{
    (void)state;
    start();
    outb(m, P + 4, 0x1f);
    assert_int_equal(inb(m, P + 6) & 0xf0, 0xf0);
    outb(m, P + 4, 0x10);
    assert_int_equal(inb(m, P + 6), 0x0f); /* all changed; RI by its trailing edge */
    assert_int_equal(inb(m, P + 6), 0x00);
    outb(m, P, 'q');
    assert_int_equal(inb(m, P + 5) & 1, 1);
    assert_int_equal(inb(m, P), 'q');
    outb(m, P, '1');
    outb(m, P, '2'); /* overrun */
    assert_int_equal(inb(m, P + 5) & 3, 3);
    assert_int_equal(inb(m, P + 5) & 3, 1);
    assert_int_equal(inb(m, P), '2');
    input("in");
    assert_int_equal(strlen(con.held), 2); /* the line is cut */
    outb(m, P + 4, 0x0b);
    assert_int_equal(inb(m, P), 'i');
    assert_int_equal(con.n, 0);
    assert_int_equal(inb(m, P + 6) & 0xf0, 0xb0);
    machine_free(m);
}

static void uart__is_found_by_drivers(void **state)
{
    (void)state;
    start();
    /* Linux 8250 autoconfig: IER holds 4 bits, the scratch register all, FIFOs show in IIR. */
    outb(m, P + 1, 0xff);
    assert_int_equal(inb(m, P + 1), 0x0f);
    outb(m, P + 1, 0);
    outb(m, P + 7, 0xa5);
    assert_int_equal(inb(m, P + 7), 0xa5);
    outb(m, P + 2, 0x01);
    assert_int_equal(inb(m, P + 2) >> 6, 3);
    outb(m, P + 2, 0x00);
    assert_int_equal(inb(m, P + 2) >> 6, 0);
    outb(m, P + 3, 0x80);
    outb(m, P, 0x34);
    outb(m, P + 1, 0x12);
    assert_int_equal(inb(m, P), 0x34);
    outb(m, P + 3, 0);
    assert_int_equal(inb(m, P + 1), 0);
    machine_free(m);
}

static void exits__each_tell_why(void **state)
{
    static const struct {
        u16 port;
        u8 val;
        enum vm_stop_reason why;
        int code;
    } row[] = {
        {0xf4, 0x00, VM_TEST_EXIT, 1}, {0xf4, 0x10, VM_TEST_EXIT, 0x21},
        {0x505, 0x01, VM_CRASH, 124},  {0x505, 0x02, VM_RUNNING, 0},
        {0x64, 0xfe, VM_RESET, 0},     {0x64, 0xff, VM_RUNNING, 0},
        {0x92, 0x01, VM_RESET, 0},     {0x92, 0x02, VM_RUNNING, 0},
        {0x80, 0xff, VM_RUNNING, 0},
    };
    struct i8042_config kbc = {.kbd_irq = probe_line(&irq)};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(row); i++) {
        m = machine_new(1);
        assert_non_null(debug_exit_create(&m->vm, 0xf4));
        assert_non_null(pvpanic_create(&m->vm, 0x505));
        assert_non_null(i8042_create(&m->vm, &kbc));
        assert_non_null(ports_create(&m->vm));
        assert_null(debug_exit_create(&m->vm, 0xf4)); /* taken */
        outb(m, row[i].port, row[i].val);
        assert_int_equal(m->vm.stop_reason, row[i].why);
        assert_int_equal(m->vm.exit_code, row[i].code);
        machine_free(m);
    }
}

static void i8042__answers_as_a_controller(void **state)
{
    struct i8042_config kbc = {.kbd_irq = probe_line(&irq)};

    (void)state;
    m = machine_new(1);
    irq = (struct probe){0};
    assert_non_null(i8042_create(&m->vm, &kbc));
    assert_int_equal(inb(m, 0x64) & 1, 0);
    outb(m, 0x64, 0xaa);
    assert_int_equal(inb(m, 0x64) & 1, 1);
    assert_int_equal(inb(m, 0x60), 0x55);
    outb(m, 0x64, 0xab);
    assert_int_equal(inb(m, 0x60), 0);
    outb(m, 0x64, 0x60);
    outb(m, 0x60, 0x45);
    outb(m, 0x64, 0x20);
    assert_true(irq.level);
    assert_int_equal(inb(m, 0x60), 0x45);
    assert_false(irq.level);
    outb(m, 0x60, 0xff); /* keyboard reset: nobody there */
    assert_int_equal(inb(m, 0x64) & 0x41, 0x41);
    assert_int_equal(inb(m, 0x60), 0xfe);
    outb(m, 0x64, 0xd3); /* auxiliary loop-back */
    outb(m, 0x60, 0xa5);
    assert_int_equal(inb(m, 0x64) & 0x21, 0x21);
    assert_int_equal(inb(m, 0x60), 0xa5);
    outb(m, 0x64, 0xd1);
    outb(m, 0x60, 0xfe);
    assert_int_equal(m->vm.stop_reason, VM_RESET);
    machine_free(m);
}

static struct probe lines[TEST_DEVICE_IRQS];

static struct device *test_device(void)
{
    struct test_device_config cfg;

    m = machine_new(1);
    for (unsigned i = 0; i < TEST_DEVICE_IRQS; i++) {
        lines[i] = (struct probe){0};
        cfg.irq[i] = probe_line(&lines[i]);
    }
    return test_device_create(&m->vm, &cfg);
}

static void test_device__registers_lines_memory(void **state)
{
    const struct test_device_config none = {0};

    (void)state;
    assert_non_null(test_device());
    vm_pio_write(&m->vm, 0xe0, 4, 0x12345678);
    vm_pio_write(&m->vm, 0xe1, 2, 0xabcd);
    assert_int_equal(vm_pio_read(&m->vm, 0xe0, 4), 0x12abcd78);
    assert_int_equal(inb(m, 0xe3), 0x12);
    vm_pio_write(&m->vm, 0xe4, 4, 0x5000);
    assert_int_equal(vm_pio_read(&m->vm, 0xe0, 4), 0x12abcd78);
    outb(m, 0x2000, 1);
    vm_pio_write(&m->vm, 0x200b, 4, 0x100);
    outb(m, 0x2017, 1);
    for (unsigned i = 0; i < TEST_DEVICE_IRQS; i++)
        assert_int_equal(lines[i].level, i == 0 || i == 11 || i == 23);
    vm_pio_write(&m->vm, 0x200b, 4, 0);
    assert_false(lines[11].level);
    vm_mmio_write(&m->vm, 0xff000000, 8, 0x1122334455667788);
    assert_int_equal(vm_mmio_read(&m->vm, 0xff000003, 4), 0x22334455);
    vm_mmio_write(&m->vm, 0xff00fffc, 8, ~0ull); /* beyond the end: nobody there */
    assert_int_equal(vm_mmio_read(&m->vm, 0xff00fffc, 4), 0xffffffff);
    vm_mmio_write(&m->vm, 0xff00ffff, 1, 0);
    assert_int_equal(vm_mmio_read(&m->vm, 0xff00fffc, 4), 0x00ffffff);
    assert_null(test_device_create(&m->vm, &none)); /* addresses are taken, and stay as they are */
    assert_int_equal(vm_pio_read(&m->vm, 0xe0, 4), 0x12abcd78);
    machine_free(m);
}

static void test_device__is_saved(void **state)
{
    static u8 bytes[TEST_DEVICE_MEM_SIZE + 64];
    struct stream s;
    struct device *d = test_device();
    const char *why = NULL;
    size_t len;

    (void)state;
    vm_pio_write(&m->vm, 0xe0, 4, 0x12345678);
    outb(m, 0x2005, 1);
    vm_mmio_write(&m->vm, 0xff00fff8, 8, 0x1122334455667788);
    stream_init(&s, bytes, sizeof(bytes));
    assert_int_equal(d->ops->save(d, &s, &why), 0);
    len = s.pos;
    machine_free(m);

    d = test_device();
    stream_init(&s, bytes, len);
    assert_int_equal(d->ops->load(d, &s), 0);
    assert_int_equal(vm_pio_read(&m->vm, 0xe0, 4), 0x12345678);
    assert_int_equal(vm_mmio_read(&m->vm, 0xff00fff8, 8), 0x1122334455667788);
    assert_false(lines[5].level); /* loading is silent */
    stream_init(&s, bytes, len - 1);
    assert_int_equal(d->ops->load(d, &s), -EINVAL);
    bytes[2 + 3] = 1; /* a 25th line */
    stream_init(&s, bytes, len);
    assert_int_equal(d->ops->load(d, &s), -EINVAL);
    machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uart__transmits_in_lines),
        cmocka_unit_test(uart__thre_interrupt),
        cmocka_unit_test(uart__receives),
        cmocka_unit_test(uart__fifo_timeout),
        cmocka_unit_test(uart__loops_back),
        cmocka_unit_test(uart__is_found_by_drivers),
        cmocka_unit_test(exits__each_tell_why),
        cmocka_unit_test(i8042__answers_as_a_controller),
        cmocka_unit_test(test_device__registers_lines_memory),
        cmocka_unit_test(test_device__is_saved),
    };
    return cmocka_run_group_tests_name("dev-ports", tests, NULL, NULL);
}
