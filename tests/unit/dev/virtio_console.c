/* SPDX-License-Identifier: Apache-2.0 */
/* The console device: data both ways against backends that are slow, and control messages. */
#include <stdlib.h>
#include <string.h>

#include "core/backend.h"
#include "dev/pci/pci.h"
#include "dev/virtio/console.h"
#include "dev/virtio_driver.h"
#include "test.h"

#define DEVFN PCI_DEVFN(4, 0)
#define SIZE 16

#define F_SIZE 1ull
#define F_MULTIPORT 2ull
#define F_EMERG 4ull

/* Messages */
enum { READY, ADD, REMOVE, PORT_READY, CONSOLE_PORT, RESIZE, OPEN, NAME };

#define CONTROL_RX 2
#define CONTROL_TX 3

static struct vd_board *b;
static struct vdriver d;
static u64 buf;

/* A backend that takes `room` bytes and keeps them. */
struct sink {
    struct chardev c;
    size_t room, n;
    unsigned kicks;
    u8 data[1 << 20];
};
static struct sink console, port;

static size_t sink_write(struct chardev *c, const u8 *p, size_t n)
{
    struct sink *s = container_of(c, struct sink, c);

    n = n < s->room ? n : s->room;
    assert_true(s->n + n <= sizeof(s->data));
    memcpy(s->data + s->n, p, n);
    s->n += n;
    s->room -= n;
    return n;
}

static void sink_kick(struct chardev *c)
{
    container_of(c, struct sink, c)->kicks++;
}

static void sink_init(struct sink *s)
{
    memset(s, 0, sizeof(*s));
    s->room = sizeof(s->data);
    s->c.write = sink_write;
    s->c.kick_input = sink_kick;
}

static void create(bool with_console, unsigned nports)
{
    struct virtio_console_config c = {.name = "console0", .nports = nports};

    b = vd_board_new();
    sink_init(&console);
    sink_init(&port);
    console.c.cols = 100;
    console.c.rows = 40;
    c.console = with_console ? &console.c : NULL;
    for (unsigned i = 0; i < nports; i++) {
        c.port[i].name = i ? "other" : "org.example.0";
        c.port[i].chr = &port.c;
    }
    assert_non_null(virtio_console_create(&b->m->vm, b->host, DEVFN, &c));
    vd_attach(&d, b, DEVFN);
    assert_int_equal(vd_config(b, DEVFN, 2, 2), 0x1043);
}

static void give(unsigned q, u32 len, unsigned n)
{
    while (n--)
        assert_true(vd_add(&d, q, &(struct vd_buf){vd_alloc(b, len, 16), len}, 0, 1) >= 0);
    vd_kick(&d, q);
}

/* Output through queue q in pieces; whether the device is done with it. */
static bool put(unsigned q, const char *text)
{
    struct vd_buf v[2];
    u32 n = (u32)strlen(text), first = n > 3 ? 3 : n;

    memcpy(vd_ram(b, buf), text, n);
    v[0] = (struct vd_buf){buf, first};
    v[1] = (struct vd_buf){buf + first, n - first};
    assert_true(vd_add(&d, q, v, n > first ? 2 : 1, 0) >= 0);
    vd_kick(&d, q);
    return vd_used(&d, q, NULL) >= 0;
}

static size_t input(struct sink *s, const char *text)
{
    size_t n;

    vm_lock(&b->m->vm);
    n = s->c.on_input(s->c.dev, (const u8 *)text, strlen(text));
    vm_unlock(&b->m->vm);
    return n;
}

static void writable(struct sink *s, size_t room)
{
    s->room = room;
    vm_lock(&b->m->vm);
    s->c.on_writable(s->c.dev);
    vm_unlock(&b->m->vm);
}

static void start(struct vd_mode mode, u64 features)
{
    vd_start(&d, mode, features, SIZE);
    buf = vd_alloc(b, 0x10000, 4096);
}

/* --- control messages ----------------------------------------------------------------------------
 */

struct message {
    u32 id;
    u16 event, value;
    char rest[80];
};

static u64 control_buf[2 * VD_SIZE_MAX]; /* by id */

static void give_control(unsigned n, u32 len)
{
    while (n--) {
        u64 at = vd_alloc(b, len, 16);
        int id = vd_add(&d, CONTROL_RX, &(struct vd_buf){at, len}, 0, 1);
        assert_true(id >= 0);
        control_buf[id] = at;
    }
    vd_kick(&d, CONTROL_RX);
}

static void tell(u32 id, u16 event, u16 value)
{
    struct message m = {.id = id, .event = event, .value = value};

    memcpy(vd_ram(b, buf), &m, 8);
    assert_true(vd_add(&d, CONTROL_TX, &(struct vd_buf){buf, 8}, 1, 0) >= 0);
    vd_kick(&d, CONTROL_TX);
    assert_true(vd_used(&d, CONTROL_TX, NULL) >= 0);
}

static bool told(struct message *m)
{
    u32 len;
    int id = vd_used(&d, CONTROL_RX, &len);

    if (id < 0)
        return false;
    memset(m, 0, sizeof(*m));
    assert_in_range(len, 8, sizeof(*m));
    memcpy(m, vd_ram(b, control_buf[id]), len);
    return true;
}

static void expect(u32 id, u16 event, u16 value, const char *rest)
{
    struct message m;

    assert_true(told(&m));
    assert_int_equal(m.id, id);
    assert_int_equal(m.event, event);
    assert_int_equal(m.value, value);
    if (rest)
        assert_string_equal(m.rest, rest);
}

static void console__introduces_its_ports(void **state)
{
    struct message m;

    (void)state;
    for (unsigned n = 0; n < VD_MODES; n++) {
        create(true, 2);
        assert_int_equal(d.nqueues, 8);
        assert_int_equal(vd_dev_get(&d, 4, 4), 3);
        start(vd_mode(n), F_MULTIPORT | F_SIZE);
        give_control(SIZE, 80);
        assert_false(told(&m));
        tell(0, READY, 1);
        expect(0, ADD, 1, NULL);
        expect(1, ADD, 1, NULL);
        expect(2, ADD, 1, NULL);
        tell(1, PORT_READY, 1);
        expect(1, NAME, 1, "org.example.0");
        expect(1, OPEN, 1, NULL);
        tell(0, PORT_READY, 1);
        expect(0, CONSOLE_PORT, 1, NULL);
        assert_true(told(&m));
        assert_int_equal(m.event, RESIZE);
        expect(0, OPEN, 1, NULL);
        assert_true(vd_interrupts(&d, CONTROL_RX) > 0);
        /* Nonsense is no reason for anything */
        tell(0, READY, 0);
        tell(3, PORT_READY, 1);
        tell(0xffffffff, OPEN, 1);
        tell(1, 77, 1);
        tell(1, PORT_READY, 0);
        assert_false(told(&m));
        vd_board_free(b);
    }
}

/* Messages wait for buffers, and asking again does not make more of them. */
static void console__control_buffers_are_short(void **state)
{
    struct message m;

    (void)state;
    create(false, 1);
    start(vd_mode(0), F_MULTIPORT);
    for (unsigned i = 0; i < 1000; i++)
        tell(0, READY, 1);
    for (unsigned i = 0; i < 1000; i++)
        tell(1, PORT_READY, 1);
    give_control(1, 80);
    expect(1, ADD, 1, NULL);
    assert_false(told(&m));
    give_control(4, 80);
    expect(1, NAME, 1, "org.example.0");
    expect(1, OPEN, 1, NULL);
    assert_false(told(&m));
    /* One that a message does not fit breaks the device */
    start(vd_mode(0), F_MULTIPORT);
    tell(1, PORT_READY, 1);
    give_control(1, 8);
    assert_true(vd_status(&d) & VD_NEEDS_RESET);
    assert_true(vd_reset(&d));
    vd_board_free(b);
}

static void console__short_messages_are_ignored(void **state)
{
    struct message m;

    (void)state;
    create(false, 1);
    start(vd_mode(1), F_MULTIPORT);
    give_control(4, 80);
    memset(vd_ram(b, buf), 0, 16);
    for (u32 len = 0; len < 8; len++) {
        vd_add(&d, CONTROL_TX, &(struct vd_buf){buf, len}, 1, 0);
        vd_add(&d, CONTROL_TX, &(struct vd_buf){buf, len}, 0, 1);
        vd_kick(&d, CONTROL_TX);
        assert_true(vd_used(&d, CONTROL_TX, NULL) >= 0);
        assert_true(vd_used(&d, CONTROL_TX, NULL) >= 0);
    }
    assert_false(told(&m));
    vd_board_free(b);
}

static void console__without_multiport(void **state)
{
    (void)state;
    for (unsigned n = 0; n < VD_MODES; n++) {
        create(true, 0);
        assert_int_equal(d.nqueues, 2);
        start(vd_mode(n), F_SIZE | F_EMERG);
        assert_int_equal(d.offered & F_MULTIPORT, 0);
        assert_int_equal(vd_config_interrupts(&d), 1);
        assert_int_equal(vd_dev_get(&d, 0, 2), 100);
        assert_int_equal(vd_dev_get(&d, 2, 2), 40);
        console.c.cols = 80;
        vm_lock(&b->m->vm);
        console.c.on_resize(console.c.dev, 80, 40);
        vm_unlock(&b->m->vm);
        assert_int_equal(vd_config_interrupts(&d), 1);
        assert_int_equal(vd_dev_get(&d, 0, 2), 80);
        vd_want_interrupt(&d, 1, 1);
        assert_true(put(1, "hello"));
        assert_int_equal(vd_interrupts(&d, 1), 1);
        assert_int_equal(console.n, 5);
        assert_memory_equal(console.data, "hello", 5);
        give(0, 16, 1);
        vd_want_interrupt(&d, 0, 1);
        assert_int_equal(input(&console, "typed"), 5);
        assert_int_equal(vd_interrupts(&d, 0), 1);
        assert_true(vd_used(&d, 0, NULL) >= 0);
        vd_board_free(b);
    }
}

static void console__emergency_write(void **state)
{
    (void)state;
    create(true, 1);
    vd_dev_put(&d, 8, 4, 'A'); /* before anything was negotiated */
    start(vd_mode(0), F_MULTIPORT);
    vd_dev_put(&d, 8, 1, 'B');
    vd_dev_put(&d, 0, 2, 'C'); /* not the field */
    assert_int_equal(console.n, 2);
    assert_memory_equal(console.data, "AB", 2);
    vd_board_free(b);
    create(false, 1); /* no console, no emergency */
    vd_dev_put(&d, 8, 4, 'A');
    vd_board_free(b);
}

/* --- data ----------------------------------------------------------------------------------------
 */

/* A full backend: nothing is lost, nothing comes twice, and the queue stands still. */
static void console__output_waits_for_the_backend(void **state)
{
    (void)state;
    for (unsigned n = 0; n < VD_MODES; n++) {
        create(false, 1);
        start(vd_mode(n), F_MULTIPORT);
        port.room = 4;
        assert_false(put(5, "0123456789"));
        assert_int_equal(port.n, 4);
        /* The buffer is the guest's until it is used, but what was sent is sent */
        assert_true(vd_reset(&d)); /* nothing is in flight */
        start(vd_mode(n), F_MULTIPORT);
        port.n = 0;
        port.room = 4;
        assert_false(put(5, "0123456789"));
        vd_notify(&d, 5);
        vd_notify(&d, 5);
        assert_int_equal(port.n, 4);
        writable(&port, 0);
        assert_int_equal(port.n, 4);
        assert_int_equal(vd_used(&d, 5, NULL), -1);
        writable(&port, 3);
        assert_int_equal(port.n, 7);
        fake_advance(10000000000ull); /* a port waits for ever */
        fake_settle();
        vd_want_interrupt(&d, 5, 1);
        vd_interrupts(&d, 5);
        writable(&port, 1000);
        assert_int_equal(vd_interrupts(&d, 5), 1);
        assert_true(vd_used(&d, 5, NULL) >= 0);
        assert_int_equal(port.n, 10);
        assert_memory_equal(port.data, "0123456789", 10);
        vd_board_free(b);
    }
}

/* A console's reader who stands still loses output, for the guest's kernel waits with it. */
static void console__console_gives_up_on_its_reader(void **state)
{
    (void)state;
    create(true, 0);
    start(vd_mode(0), 0);
    console.room = 2;
    assert_false(put(1, "abcdef"));
    fake_advance(1000000000);
    assert_int_equal(vd_used(&d, 1, NULL), -1);
    fake_advance(1500000000);
    assert_true(vd_used(&d, 1, NULL) >= 0);
    assert_true(put(1, "lost"));
    writable(&console, 100);
    assert_true(put(1, "seen"));
    assert_int_equal(console.n, 6);
    assert_memory_equal(console.data, "abseen", 6);
    vd_board_free(b);
}

/* More than a notification's worth is sent by the event loop. */
static void console__flood_is_taken_in_turns(void **state)
{
    unsigned used = 0, turns;

    (void)state;
    for (unsigned n = 0; n < VD_MODES; n++) {
        create(true, 0);
        start(vd_mode(n), 0);
        memset(vd_ram(b, buf), 'x', 0x10000);
        for (unsigned i = 0; i < SIZE - 1; i++)
            assert_true(vd_add(&d, 1, &(struct vd_buf){buf, 0xf000}, 1, 0) >= 0);
        vd_kick(&d, 1);
        assert_in_range(console.n, 0xf000, 0x10000);
        turns = fake_settle();
        assert_in_range(turns, 12, 20);
        assert_int_equal(console.n, (SIZE - 1) * 0xf000);
        for (used = 0; vd_used(&d, 1, NULL) >= 0;)
            used++;
        assert_int_equal(used, SIZE - 1);
        vd_board_free(b);
    }
}

static void console__input_waits_for_the_guest(void **state)
{
    (void)state;
    for (unsigned n = 0; n < VD_MODES; n++) {
        int id;
        u32 len;
        u64 at;

        create(false, 1);
        start(vd_mode(n), F_MULTIPORT);
        at = vd_alloc(b, 64, 16);
        id = vd_add(&d, 4, &(struct vd_buf){at, 4}, 0, 1);
        vd_kick(&d, 4);
        /* A port the guest has not opened takes nothing */
        assert_int_equal(input(&port, "abcdef"), 0);
        assert_int_equal(port.kicks, 0);
        tell(1, OPEN, 1);
        assert_int_equal(port.kicks, 1);
        assert_int_equal(input(&port, "abcdef"), 4);
        assert_int_equal(vd_used(&d, 4, &len), id);
        assert_int_equal(len, 4);
        assert_memory_equal(vd_ram(b, at), "abcd", 4);
        assert_int_equal(input(&port, "ef"), 0);
        assert_int_equal(port.kicks, 1);
        id = vd_add(&d, 4, &(struct vd_buf){at, 4}, 0, 1);
        assert_true(vd_kick(&d, 4));
        assert_int_equal(port.kicks, 2);
        assert_int_equal(input(&port, "ef"), 2);
        assert_int_equal(vd_used(&d, 4, &len), id);
        assert_int_equal(len, 2);
        /* More buffers are no reason to ask when nothing waits */
        give(4, 16, 1);
        assert_int_equal(port.kicks, 2);
        tell(1, OPEN, 0);
        assert_int_equal(input(&port, "x"), 0);
        /* Reset closes it */
        tell(1, OPEN, 1);
        start(vd_mode(n), F_MULTIPORT);
        give(4, 16, 1);
        assert_int_equal(input(&port, "x"), 0);
        vd_board_free(b);
    }
}

static void console__nobody_at_the_other_end(void **state)
{
    (void)state;
    create(false, 1);
    port.c.closed = true;
    start(vd_mode(0), F_MULTIPORT);
    give_control(8, 80);
    tell(0, READY, 1);
    expect(1, ADD, 1, NULL);
    tell(1, PORT_READY, 1);
    expect(1, NAME, 1, NULL);
    expect(1, OPEN, 0, NULL);
    assert_true(put(5, "lost"));
    assert_int_equal(port.n, 0);
    port.c.closed = false;
    vm_lock(&b->m->vm);
    port.c.on_open(port.c.dev, true);
    vm_unlock(&b->m->vm);
    expect(1, OPEN, 1, NULL);
    port.room = 1;
    assert_false(put(5, "half"));
    port.c.closed = true; /* goes in the middle */
    vm_lock(&b->m->vm);
    port.c.on_open(port.c.dev, false);
    vm_unlock(&b->m->vm);
    expect(1, OPEN, 0, NULL);
    assert_true(vd_used(&d, 5, NULL) >= 0);
    vd_board_free(b);
}

/* Queues of a port that is not there: taken, to nowhere. */
static void console__port_zero_without_console(void **state)
{
    (void)state;
    create(false, 1);
    start(vd_mode(0), F_MULTIPORT);
    give(0, 16, 2);
    assert_true(put(1, "to nobody"));
    vd_board_free(b);
}

static void console__odd_chains(void **state)
{
    (void)state;
    create(true, 0);
    start(vd_mode(0), 0);
    give(0, 0, 3); /* input buffers without room */
    assert_int_equal(input(&console, "abc"), 0);
    vd_add(&d, 0, &(struct vd_buf){buf, 16}, 1, 0); /* and one that may only be read */
    vd_kick(&d, 0);
    assert_int_equal(input(&console, "abc"), 0);
    vd_add(&d, 1, &(struct vd_buf){buf, 16}, 0, 1); /* output that may only be written */
    vd_add(&d, 1, &(struct vd_buf){buf, 0}, 1, 0);
    vd_kick(&d, 1);
    assert_true(vd_used(&d, 1, NULL) >= 0);
    assert_true(vd_used(&d, 1, NULL) >= 0);
    assert_int_equal(console.n, 0);
    vd_board_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(console__introduces_its_ports),
        cmocka_unit_test(console__control_buffers_are_short),
        cmocka_unit_test(console__short_messages_are_ignored),
        cmocka_unit_test(console__without_multiport),
        cmocka_unit_test(console__emergency_write),
        cmocka_unit_test(console__output_waits_for_the_backend),
        cmocka_unit_test(console__console_gives_up_on_its_reader),
        cmocka_unit_test(console__flood_is_taken_in_turns),
        cmocka_unit_test(console__input_waits_for_the_guest),
        cmocka_unit_test(console__nobody_at_the_other_end),
        cmocka_unit_test(console__port_zero_without_console),
        cmocka_unit_test(console__odd_chains),
    };
    return cmocka_run_group_tests_name("dev-virtio-console", tests, NULL, NULL);
}
