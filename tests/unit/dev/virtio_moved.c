/* SPDX-License-Identifier: Apache-2.0 */
/* Small devices in the middle of traffic when their machine is saved: entropy, balloon, console,
 * sockets. */
#include <errno.h>
#include <string.h>

#include "core/backend.h"
#include "dev/pci/pci.h"
#include "dev/virtio/balloon.h"
#include "dev/virtio/console.h"
#include "dev/virtio/rng.h"
#include "dev/virtio/vsock.h"
#include "dev/virtio_move.h"
#include "test.h"

#define DEVFN PCI_DEVFN(4, 0)
#define SIZE 8

static struct vd_board *b;
static struct vdriver d;
static struct vd_board *(*create)(void);

static void start(unsigned mode, struct vd_board *(*fn)(void), u64 features)
{
    create = fn;
    b = create();
    vd_attach(&d, b, DEVFN);
    vd_start(&d, vd_mode(mode), features, SIZE);
    fake_settle();
}

static void move(void)
{
    vd_move(&b, &d, create);
}

/* --- entropy -------------------------------------------------------------------------------------
 */

static struct vd_board *create_rng(void)
{
    struct vd_board *now = vd_board_new();

    assert_non_null(virtio_rng_create(&now->m->vm, now->host, DEVFN, "rng0"));
    return now;
}

static void moved__entropy(void **state)
{
    (void)state;
    for (unsigned mode = 0; mode < VD_MODES; mode++) {
        start(mode, create_rng, 0);
        for (unsigned i = 0; i < 30; i++) {
            struct vd_buf v[2] = {{0x100000, 50}, {0x110000, 50}};
            u32 len;

            memset(vd_ram(b, 0x100000), 0, 50);
            vd_want_interrupt(&d, 0, 1);
            assert_true(vd_add(&d, 0, v, 0, 2) >= 0);
            assert_true(vd_kick(&d, 0));
            if (i % 4 < 2)
                move();
            assert_int_equal(vd_used(&d, 0, NULL), -1);
            fake_settle();
            if (i % 4 == 2)
                move();
            assert_int_equal(vd_interrupts(&d, 0), 1);
            assert_true(vd_used(&d, 0, &len) >= 0);
            assert_int_equal(len, 100);
            assert_true(*(u64 *)(void *)vd_ram(b, 0x100000));
            fake_settle();
        }
        vd_board_free(b);
    }
}

/* --- balloon -------------------------------------------------------------------------------------
 */

static u64 target;

static struct vd_board *create_balloon(void)
{
    struct vd_board *now = vd_board_new();

    assert_non_null(virtio_balloon_create(&now->m->vm, now->host, DEVFN, "balloon0", target));
    return now;
}

static void moved__balloon(void **state)
{
    (void)state;
    for (unsigned mode = 0; mode < VD_MODES; mode++) {
        target = 3 << 12;
        start(mode, create_balloon, 4 | 32);
        vd_dev_put(&d, 4, 4, 77);
        for (unsigned i = 0; i < 20; i++) {
            u32 pfn = 0x100 + i;

            memcpy(vd_ram(b, 0x180000), &pfn, 4);
            vd_want_interrupt(&d, 0, 1);
            assert_true(vd_add(&d, 0, &(struct vd_buf){0x180000, 4}, 1, 0) >= 0);
            vd_kick(&d, 0);
            memset(vd_ram(b, (u64)pfn << 12), 1, 4096);
            if (i % 3 == 0)
                move();
            assert_int_equal(*vd_ram(b, (u64)pfn << 12), 1);
            fake_settle();
            assert_int_equal(*vd_ram(b, (u64)pfn << 12), 0);
            if (i % 3 == 1)
                move();
            assert_int_equal(vd_interrupts(&d, 0), 1);
            assert_true(vd_used(&d, 0, NULL) >= 0);
            assert_int_equal(vd_dev_get(&d, 4, 4), 77);
            fake_settle();
        }
        assert_int_equal(vd_config_interrupts(&d), 0);
        /* Somebody wants more of the guest now. */
        target = 5 << 12;
        move();
        assert_int_equal(vd_config_interrupts(&d), 1);
        assert_int_equal(vd_dev_get(&d, 0, 4), 5);
        vd_board_free(b);
    }
}

/* --- console and ports ---------------------------------------------------------------------------
 */

#define F_MULTIPORT 2ull
enum { CONTROL_RX = 2, CONTROL_TX = 3, PORT_RX = 4, PORT_TX = 5 };
enum { READY = 0, ADD = 1, PORT_READY = 3, RESIZE = 5, OPEN = 6, NAME = 7 };

static struct sink {
    struct chardev c;
    size_t room, n;
    unsigned kicks;
    u8 data[64];
} sink[2]; /* console, port */
static unsigned nports;
static void (*differs)(void); /* what is different from the next machine on */

static size_t sink_write(struct chardev *c, const u8 *p, size_t n)
{
    struct sink *s = container_of(c, struct sink, c);

    n = n < s->room ? n : s->room;
    memcpy(s->data + s->n, p, n);
    s->n += n;
    s->room -= n;
    return n;
}

static void sink_kick(struct chardev *c)
{
    container_of(c, struct sink, c)->kicks++;
}

/* Backends are new in the new machine, but for what a test says of them. */
static struct vd_board *create_console(void)
{
    struct virtio_console_config c = {
        .name = "console0", .console = &sink[0].c, .port = {{"one", &sink[1].c}}, .nports = nports};
    struct vd_board *now = vd_board_new();
    void (*fn)(void) = differs;

    differs = NULL;
    if (fn)
        fn();
    for (unsigned i = 0; i < 2; i++) {
        sink[i].c.write = sink_write;
        sink[i].c.kick_input = sink_kick;
        sink[i].room = sizeof(sink[i].data) - sink[i].n;
    }
    assert_non_null(virtio_console_create(&now->m->vm, now->host, DEVFN, &c));
    return now;
}

static void other_size(void)
{
    sink[0].c.cols = 132;
}

static void nobody(void)
{
    sink[1].c.closed = true;
}

static void start_console(unsigned mode, unsigned ports)
{
    memset(sink, 0, sizeof(sink));
    nports = ports;
    sink[0].c.cols = 80;
    sink[0].c.rows = 25;
    start(mode, create_console, ports ? F_MULTIPORT : 1);
    vd_config_interrupts(&d);
}

static void give(unsigned q, u32 len)
{
    assert_true(vd_add(&d, q, &(struct vd_buf){vd_alloc(b, len, 16), len}, 0, 1) >= 0);
    vd_kick(&d, q);
}

static bool put(unsigned q, const char *text)
{
    u32 n = (u32)strlen(text);
    u64 at = vd_alloc(b, n, 1);

    memcpy(vd_ram(b, at), text, n);
    assert_true(vd_add(&d, q, &(struct vd_buf){at, n}, 1, 0) >= 0);
    vd_kick(&d, q);
    return vd_used(&d, q, NULL) >= 0;
}

static void tell(u32 id, u16 event, u16 value)
{
    const u16 m[4] = {(u16)id, 0, event, value};
    u64 at = vd_alloc(b, 8, 8);

    memcpy(vd_ram(b, at), m, 8);
    assert_true(vd_add(&d, CONTROL_TX, &(struct vd_buf){at, 8}, 1, 0) >= 0);
    vd_kick(&d, CONTROL_TX);
    assert_true(vd_used(&d, CONTROL_TX, NULL) >= 0);
}

/* Gives a buffer for a message; which event it brings for which port (with 256 a value of 1), or
 * -1. */
static int hear(unsigned id)
{
    u64 at = vd_alloc(b, 80, 16);
    u16 m[4];

    assert_true(vd_add(&d, CONTROL_RX, &(struct vd_buf){at, 80}, 0, 1) >= 0);
    vd_kick(&d, CONTROL_RX);
    fake_settle();
    if (vd_used(&d, CONTROL_RX, NULL) < 0)
        return -1;
    memcpy(m, vd_ram(b, at), 8);
    assert_int_equal(m[0], id);
    return m[2] | (m[3] ? 256 : 0);
}

static size_t input(struct sink *s, const char *text)
{
    size_t n;

    vm_lock(&b->m->vm);
    n = s->c.on_input(s->c.dev, (const u8 *)text, strlen(text));
    vm_unlock(&b->m->vm);
    return n;
}

static void moved__console_output(void **state)
{
    (void)state;
    for (unsigned mode = 0; mode < VD_MODES; mode++) {
        start_console(mode, 0);
        sink[0].room = 3;
        assert_false(put(1, "half"));
        assert_false(put(1, " and whole"));
        move();
        assert_int_equal(sink[0].n, 3);
        vd_want_interrupt(&d, 1, 1);
        fake_settle();
        assert_int_equal(vd_interrupts(&d, 1), 1);
        assert_int_equal(sink[0].n, 14);
        assert_memory_equal(sink[0].data, "half and whole", 14);
        assert_true(vd_used(&d, 1, NULL) >= 0);
        assert_true(vd_used(&d, 1, NULL) >= 0);
        assert_true(put(1, "!"));
        /* The patience with the old reader is none with the new one. */
        fake_advance(10000000000ull);
        assert_int_equal(sink[0].n, 15);
        assert_int_equal(vd_config_interrupts(&d), 0);
        differs = other_size;
        move();
        assert_int_equal(vd_config_interrupts(&d), 1);
        assert_int_equal(vd_dev_get(&d, 0, 2), 132);
        vd_board_free(b);
    }
}

static void moved__console_input(void **state)
{
    (void)state;
    for (unsigned mode = 0; mode < VD_MODES; mode++) {
        start_console(mode, 0);
        give(0, 4);
        assert_int_equal(input(&sink[0], "abc"), 3);
        give(0, 4);
        move();
        assert_true(vd_used(&d, 0, NULL) >= 0);
        fake_settle();
        assert_int_equal(input(&sink[0], "defgh"), 4);
        assert_true(vd_used(&d, 0, NULL) >= 0);
        assert_int_equal(input(&sink[0], "h"), 0);
        give(0, 4);
        assert_int_equal(sink[0].kicks, 1);
        vd_board_free(b);
    }
}

static void moved__ports(void **state)
{
    (void)state;
    for (unsigned mode = 0; mode < VD_MODES; mode++) {
        start_console(mode, 1);
        tell(0, READY, 1);
        assert_int_equal(hear(0), ADD | 256);
        move(); /* with a message due */
        assert_int_equal(hear(1), ADD | 256);
        tell(1, PORT_READY, 1);
        move();
        assert_int_equal(hear(1), NAME | 256);
        assert_int_equal(hear(1), OPEN | 256);
        tell(1, OPEN, 1);
        give(PORT_RX, 8);
        move();
        fake_settle();
        assert_int_equal(input(&sink[1], "x"), 1);
        assert_true(put(PORT_TX, "y"));
        assert_int_equal(sink[1].n, 1);
        /* Nobody is there in the new machine. */
        differs = nobody;
        move();
        assert_int_equal(hear(1), OPEN);
        differs = other_size;
        move();
        assert_int_equal(hear(0), RESIZE | 256);
        assert_int_equal(hear(0), -1);
        vd_board_free(b);
    }
}

static void moved__ports_nonsense(void **state)
{
    struct state_file *f;
    size_t len;
    u8 *bytes;

    (void)state;
    start_console(0, 1);
    f = state_save(b->m);
    bytes = state_bytes(f, "virtio-console", &len);
    /* Messages that a console (2 + 1 + 2 bytes on) does not have */
    for (unsigned bit = 0; bit < 32; bit++) {
        bool known = bit == ADD || bit == 4 || bit == RESIZE || bit == OPEN;

        bytes[5 + bit / 8] ^= (u8)BIT32(bit % 8);
        assert_int_equal(state_load_device(b->m, "virtio-console", bytes, len),
                         known ? 0 : -EINVAL);
        bytes[5 + bit / 8] ^= (u8)BIT32(bit % 8);
    }
    /* Another number of ports */
    vd_board_free(b);
    nports = 0;
    b = create_console();
    assert_int_equal(state_load_device(b->m, "virtio-console", bytes, len), -EINVAL);
    vd_board_free(b);
    nports = 1;
    b = create_console();
    state_refuses_pieces(b->m, f, "virtio-console");
    vd_board_free(b);
}

/* --- sockets -------------------------------------------------------------------------------------
 */

enum { RX = 0, TX = 1, EVENT = 2 };
enum { REQUEST = 1, RESPONSE = 2, RST = 3 };

struct packet {
    u64 src_cid, dst_cid;
    u32 src_port, dst_port, len;
    u16 type, op;
    u32 flags, buf_alloc, fwd_cnt;
} __attribute__((packed));

static struct sockstream stream;
static unsigned connects, closes;

static struct sockstream *sock_connect(struct sockdev *s, u32 port)
{
    (void)s;
    (void)port;
    connects++;
    return &stream;
}

static void sock_watch(struct sockstream *s, bool readable, bool writable)
{
    (void)s;
    (void)readable;
    (void)writable;
}

static void sock_close_stream(struct sockstream *s)
{
    (void)s;
    closes++;
}

static const struct sockdev_ops sock_ops = {
    .connect = sock_connect, .watch = sock_watch, .close_stream = sock_close_stream};
static struct sockdev sock;

static struct vd_board *create_vsock(void)
{
    struct vd_board *now = vd_board_new();

    sock = (struct sockdev){.ops = &sock_ops, .cid = 42};
    assert_non_null(virtio_vsock_create(&now->m->vm, now->host, DEVFN, "vsock0", &sock));
    return now;
}

static void say(u32 port, u16 op)
{
    struct packet p = {.src_cid = 42,
                       .dst_cid = 2,
                       .src_port = port,
                       .dst_port = 9,
                       .type = 1,
                       .op = op,
                       .buf_alloc = 4096};
    u64 at = vd_alloc(b, sizeof(p), 8);

    memcpy(vd_ram(b, at), &p, sizeof(p));
    assert_true(vd_add(&d, TX, &(struct vd_buf){at, sizeof(p)}, 1, 0) >= 0);
    vd_kick(&d, TX);
}

/* The operation of the next packet for the guest, or 0. */
static unsigned packet(void)
{
    u64 at = vd_alloc(b, sizeof(struct packet), 8);
    struct packet p;

    assert_true(vd_add(&d, RX, &(struct vd_buf){at, sizeof(p)}, 0, 1) >= 0);
    vd_kick(&d, RX);
    fake_settle();
    if (vd_used(&d, RX, NULL) < 0)
        return 0;
    memcpy(&p, vd_ram(b, at), sizeof(p));
    return p.op;
}

static void moved__sockets(void **state)
{
    (void)state;
    for (unsigned mode = 0; mode < VD_MODES; mode++) {
        u64 at;
        u32 len;

        connects = closes = 0;
        start(mode, create_vsock, 1);
        at = vd_alloc(b, 8, 8);
        memset(vd_ram(b, at), 0xff, 8);
        say(1000, REQUEST);
        fake_settle();
        assert_true(vd_used(&d, TX, NULL) >= 0);
        stream.on_event(stream.opaque, SOCKSTREAM_CONNECTED);
        assert_int_equal(packet(), RESPONSE);
        say(1001, REQUEST);
        move();
        assert_int_equal(closes, 1); /* with the old process */
        /* What was said is heard, and there is no buffer for the event yet. */
        fake_settle();
        assert_true(vd_used(&d, TX, NULL) >= 0);
        assert_int_equal(connects, 2);
        if (mode & 2)
            move(); /* before the guest knows */
        fake_settle();
        assert_true(vd_add(&d, EVENT, &(struct vd_buf){at, 8}, 0, 1) >= 0);
        vd_want_interrupt(&d, EVENT, 1);
        assert_true(vd_kick(&d, EVENT));
        fake_settle();
        assert_int_equal(vd_interrupts(&d, EVENT), 1);
        assert_true(vd_used(&d, EVENT, &len) >= 0);
        assert_int_equal(len, 4);
        assert_int_equal(*(u32 *)(void *)vd_ram(b, at), 0);
        assert_int_equal(*(u32 *)(void *)vd_ram(b, at + 4), 0xffffffff);
        /* Once. */
        assert_true(vd_add(&d, EVENT, &(struct vd_buf){at, 8}, 0, 1) >= 0);
        vd_kick(&d, EVENT);
        fake_settle();
        assert_int_equal(vd_used(&d, EVENT, NULL), -1);
        /* Its old connection is none. */
        say(1000, RESPONSE);
        assert_int_equal(packet(), RST);
        vd_board_free(b);
    }
}

/* A driver that has not begun hears of nothing, and bad buffers are a driver's fault. */
static void moved__sockets_before_and_after(void **state)
{
    (void)state;
    start(0, create_vsock, 1);
    assert_true(vd_reset(&d));
    move();
    fake_settle();
    vd_start(&d, vd_mode(1), 1, SIZE);
    give(EVENT, 8);
    fake_settle();
    assert_int_equal(vd_used(&d, EVENT, NULL), -1);
    move();
    fake_settle();
    assert_true(vd_used(&d, EVENT, NULL) >= 0);
    give(EVENT, 3);
    move();
    fake_settle();
    assert_true(vd_status(&d) & VD_NEEDS_RESET);
    vd_board_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moved__entropy),        cmocka_unit_test(moved__balloon),
        cmocka_unit_test(moved__console_output), cmocka_unit_test(moved__console_input),
        cmocka_unit_test(moved__ports),          cmocka_unit_test(moved__ports_nonsense),
        cmocka_unit_test(moved__sockets),        cmocka_unit_test(moved__sockets_before_and_after),
    };

    return cmocka_run_group_tests_name("dev-virtio-moved", tests, NULL, NULL);
}
