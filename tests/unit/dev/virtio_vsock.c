/* SPDX-License-Identifier: Apache-2.0 */
/* The socket device: connections of either side's making, credit, ends, and guests that break the
 * rules. */
#include "dev/virtio/vsock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dev/pci/pci.h"
#include "dev/virtio_driver.h"
#include "test.h"

#define DEVFN PCI_DEVFN(4, 0)
#define SIZE 64
#define CID 42
#define HOST 2
#define RX 0
#define TX 1
#define BUFFER 65536u /* what the device says it has room for */
#define CONNS 256

enum { REQUEST = 1, RESPONSE, RST, SHUTDOWN, RW, UPDATE, ASK };
enum { NO_RECEIVE = 1, NO_SEND = 2 };

struct packet {
    u64 src_cid, dst_cid;
    u32 src_port, dst_port, len;
    u16 type, op;
    u32 flags, buf_alloc, fwd_cnt;
    u8 data[4096];
} __attribute__((packed));
#define HEADER 44

/* --- programs on the host ------------------------------------------------------------------------
 */

struct program {
    struct sockstream s;
    u32 port;
    size_t room, got_len, input_len, input_pos; /* room: of what it takes yet */
    u8 *got, *input;
    u32 accepted;
    bool closed, end, hung_up, broken, no_receive, no_send, watch_read, watch_write;
};

static struct program prog[CONNS + 2];
static unsigned nprogs;
static bool no_helper;
static struct sockdev sock;

static struct program *of(struct sockstream *s)
{
    struct program *p = container_of(s, struct program, s);

    assert_false(p->closed);
    return p;
}

static struct program *new_program(u32 port)
{
    struct program *p = &prog[nprogs++];

    assert_true(nprogs <= ARRAY_SIZE(prog));
    free(p->got);
    *p = (struct program){.port = port, .room = SIZE_MAX, .got = malloc(1 << 20)};
    assert_non_null(p->got);
    return p;
}

static struct sockstream *sock_connect(struct sockdev *d, u32 port)
{
    (void)d;
    return no_helper ? NULL : &new_program(port)->s;
}

static void sock_accepted(struct sockstream *s, u32 port)
{
    of(s)->accepted = port;
}

static s64 sock_receive(struct sockstream *s, const struct host_iov *iov, unsigned n)
{
    struct program *p = of(s);
    size_t done = 0;

    if (p->input_pos == p->input_len)
        return p->broken ? -ECONNRESET : p->end ? 0 : -EAGAIN;
    for (unsigned i = 0; i < n; i++) {
        size_t piece = p->input_len - p->input_pos;

        if (piece > iov[i].len)
            piece = iov[i].len;
        memcpy(iov[i].base, p->input + p->input_pos, piece);
        p->input_pos += piece;
        done += piece;
    }
    return (s64)done;
}

static s64 sock_send(struct sockstream *s, const struct host_iov *iov, unsigned n)
{
    struct program *p = of(s);
    size_t done = 0;

    if (p->broken)
        return -EPIPE;
    if (!p->room)
        return -EAGAIN;
    for (unsigned i = 0; i < n && p->room; i++) {
        size_t piece = iov[i].len < p->room ? iov[i].len : p->room;

        assert_true(p->got_len + piece <= 1 << 20);
        memcpy(p->got + p->got_len, iov[i].base, piece);
        p->got_len += piece;
        p->room -= piece;
        done += piece;
    }
    return (s64)done;
}

static bool sock_hung_up(struct sockstream *s)
{
    return of(s)->hung_up;
}

static void sock_shutdown(struct sockstream *s, bool receive, bool send)
{
    of(s)->no_receive |= receive;
    of(s)->no_send |= send;
}

static void sock_watch(struct sockstream *s, bool readable, bool writable)
{
    of(s)->watch_read = readable;
    of(s)->watch_write = writable;
}

static void sock_close_stream(struct sockstream *s)
{
    of(s)->closed = true;
}

static const struct sockdev_ops sock_ops = {.connect = sock_connect,
                                            .accepted = sock_accepted,
                                            .receive = sock_receive,
                                            .send = sock_send,
                                            .hung_up = sock_hung_up,
                                            .shutdown = sock_shutdown,
                                            .watch = sock_watch,
                                            .close_stream = sock_close_stream};

static void event(struct program *p, unsigned events)
{
    assert_false(p->closed);
    p->s.on_event(p->s.opaque, events);
    fake_settle();
}

/* What the program writes. */
static void input(struct program *p, const void *data, size_t n)
{
    p->input = (u8 *)(uintptr_t)data;
    p->input_len = n;
    p->input_pos = 0;
    if (p->watch_read)
        event(p, SOCKSTREAM_READABLE);
}

static void room(struct program *p, size_t n)
{
    p->room = n;
    assert_true(p->watch_write);
    event(p, SOCKSTREAM_WRITABLE);
}

/* --- the guest -----------------------------------------------------------------------------------
 */

static struct vd_board *b;
static struct vdriver d;
static u64 tx_at, rx_at[VD_SIZE_MAX];
static struct packet last;

static void create(void)
{
    nprogs = 0;
    no_helper = false;
    sock = (struct sockdev){.ops = &sock_ops, .cid = CID};
    b = vd_board_new();
    assert_non_null(virtio_vsock_create(&b->m->vm, b->host, DEVFN, "vsock0", &sock));
    vd_attach(&d, b, DEVFN);
    assert_int_equal(vd_config(b, DEVFN, 2, 2), 0x1053);
}

static void give(unsigned n, u32 len)
{
    while (n--) {
        u64 at = vd_alloc(b, len, 16);
        struct vd_buf v[2] = {{at, HEADER}, {at + HEADER, len - HEADER}};
        int id = vd_add(&d, RX, v, 0, len > HEADER ? 2 : 1);

        assert_true(id >= 0);
        rx_at[id] = at;
    }
    vd_kick(&d, RX);
    fake_settle();
}

static void begin(unsigned mode)
{
    vd_start(&d, vd_mode(mode), 1, SIZE);
    fake_settle();
    tx_at = vd_alloc(b, 0x20000, 4096);
}

static void start(unsigned mode)
{
    create();
    begin(mode);
    give(16, sizeof(struct packet));
}

static void end(void)
{
    vd_board_free(b);
    for (unsigned i = 0; i < nprogs; i++)
        assert_true(prog[i].closed);
}

static void say_raw(const void *packet, u32 len)
{
    struct vd_buf v[2] = {{tx_at, len < HEADER ? len : HEADER}, {tx_at + HEADER, len - HEADER}};

    memcpy(vd_ram(b, tx_at), packet, len);
    assert_true(vd_add(&d, TX, v, len > HEADER ? 2 : 1, 0) >= 0);
    vd_kick(&d, TX);
    fake_settle();
}

static struct packet header(u32 port, u32 host_port, u16 op)
{
    return (struct packet){.src_cid = CID,
                           .dst_cid = HOST,
                           .src_port = port,
                           .dst_port = host_port,
                           .type = 1,
                           .op = op,
                           .buf_alloc = 1 << 18};
}

static void say(u32 port, u32 host_port, u16 op)
{
    struct packet p = header(port, host_port, op);

    say_raw(&p, HEADER);
    assert_true(vd_used(&d, TX, NULL) >= 0);
}

static void say_flags(u32 port, u32 host_port, u32 flags)
{
    struct packet p = header(port, host_port, SHUTDOWN);

    p.flags = flags;
    say_raw(&p, HEADER);
    assert_true(vd_used(&d, TX, NULL) >= 0);
}

/* n bytes, the next ones of a sequence that goes on; at most 65536. */
static u8 tx_next;
static void say_data(u32 port, u32 host_port, u32 n)
{
    static u8 whole[HEADER + BUFFER + 1];
    struct packet p = header(port, host_port, RW);

    p.len = n;
    memcpy(whole, &p, HEADER);
    for (u32 i = 0; i < n; i++)
        whole[HEADER + i] = tx_next++;
    say_raw(whole, HEADER + n);
    assert_true(vd_used(&d, TX, NULL) >= 0);
}

/* The next packet for the guest, in last; its buffer goes back. */
static bool hear(void)
{
    u32 len;
    int id = vd_used(&d, RX, &len);

    if (id < 0)
        return false;
    assert_in_range(len, HEADER, sizeof(last));
    memcpy(&last, vd_ram(b, rx_at[id]), len);
    assert_int_equal(last.len, len - HEADER);
    assert_int_equal(last.dst_cid, CID);
    assert_int_equal(last.type, 1);
    give(1, sizeof(struct packet));
    return true;
}

static void expect(u32 port, u32 host_port, u16 op)
{
    assert_true(hear());
    assert_int_equal(last.op, op);
    assert_int_equal(last.dst_port, port);
    assert_int_equal(last.src_port, host_port);
    if (op != RST) {
        assert_int_equal(last.src_cid, HOST);
        assert_int_equal(last.buf_alloc, BUFFER);
    }
}

static void expect_nothing(void)
{
    assert_false(hear());
}

/* A connection of the guest's making. */
static struct program *connected(u32 port, u32 host_port)
{
    struct program *p;

    say(port, host_port, REQUEST);
    p = &prog[nprogs - 1];
    assert_int_equal(p->port, host_port);
    event(p, SOCKSTREAM_CONNECTED);
    expect(port, host_port, RESPONSE);
    assert_true(p->watch_read);
    return p;
}

static void assert_sequence(const struct program *p, size_t n)
{
    assert_int_equal(p->got_len, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(p->got[i], (u8)i);
}

/* --- tests ---------------------------------------------------------------------------------------
 */

static void vsock__says_the_guests_address(void **state)
{
    (void)state;
    create();
    assert_int_equal(vd_dev_get(&d, 0, 4), CID);
    assert_int_equal(vd_dev_get(&d, 4, 4), 0);
    assert_int_equal(d.nqueues, 3);
    end();
}

static void vsock__carries_bytes_in_every_mode(void **state)
{
    (void)state;
    for (unsigned mode = 0; mode < VD_MODES; mode++) {
        struct program *p;

        start(mode);
        p = connected(1000, 52);
        tx_next = 0;
        say_data(1000, 52, 3000);
        say_data(1000, 52, 1);
        assert_sequence(p, 3001);
        input(p, "hello", 5);
        expect(1000, 52, RW);
        assert_int_equal(last.len, 5);
        assert_memory_equal(last.data, "hello", 5);
        assert_int_equal(last.fwd_cnt, 3001);
        /* Clean: both halves, then an RST. */
        say_flags(1000, 52, NO_SEND);
        assert_true(p->no_send);
        expect_nothing();
        say_flags(1000, 52, NO_RECEIVE);
        assert_true(p->closed);
        expect(1000, 52, RST);
        expect_nothing();
        end();
    }
}

static void vsock__the_host_connects(void **state)
{
    struct program *p, *q;
    u32 port;

    (void)state;
    create();
    p = new_program(0);
    assert_false(sock.on_request(sock.dev, &p->s, 7)); /* no driver yet */
    p->closed = true;
    begin(3);
    p = new_program(0);
    assert_true(sock.on_request(sock.dev, &p->s, 7));
    give(4, sizeof(struct packet));
    assert_true(hear());
    assert_int_equal(last.op, REQUEST);
    assert_int_equal(last.dst_port, 7);
    port = last.src_port;
    assert_int_equal(p->accepted, 0);
    input(p, "early", 5); /* waits for the answer */
    expect_nothing();
    say(7, port, RESPONSE);
    assert_int_equal(p->accepted, port);
    expect(7, port, RW);
    assert_memory_equal(last.data, "early", 5);
    /* Another one has another port; the guest refuses. */
    q = new_program(0);
    assert_true(sock.on_request(sock.dev, &q->s, 7));
    fake_settle();
    assert_true(hear());
    assert_int_not_equal(last.src_port, port);
    say(7, last.src_port, RST);
    assert_true(q->closed);
    assert_false(p->closed);
    expect_nothing();
    end();
}

static void vsock__nobody_listens(void **state)
{
    (void)state;
    start(0);
    say(1000, 9, REQUEST);
    event(&prog[0], SOCKSTREAM_REFUSED);
    expect(1000, 9, RST);
    no_helper = true;
    say(1000, 9, REQUEST);
    expect(1000, 9, RST);
    end();
}

/* The guest gives up before the host's answer. */
static void vsock__gives_up_early(void **state)
{
    (void)state;
    start(0);
    say(1000, 9, REQUEST);
    say(1000, 9, RST);
    assert_true(prog[0].closed);
    say(1000, 9, REQUEST);
    say(1000, 9, SHUTDOWN);
    assert_true(prog[1].closed);
    expect(1000, 9, RST);
    expect_nothing();
    end();
}

static void vsock__what_the_host_does_not_take_waits(void **state)
{
    struct program *p, *q;

    (void)state;
    start(1);
    p = connected(1000, 52);
    q = connected(1001, 52);
    p->room = 100;
    tx_next = 0;
    say_data(1000, 52, 60000);
    assert_int_equal(p->got_len, 100);
    assert_true(p->watch_write);
    /* The other one is not held up. */
    tx_next = 0;
    say_data(1001, 52, 500);
    assert_sequence(q, 500);
    tx_next = (u8)60000;
    say_data(1000, 52, 5000);
    expect_nothing();
    say(1000, 52, ASK);
    expect(1000, 52, UPDATE);
    assert_int_equal(last.fwd_cnt, 100);
    room(p, 10000);
    room(p, 30000); /* half of it is gone since the guest heard: that is news */
    expect(1000, 52, UPDATE);
    assert_int_equal(last.fwd_cnt, 40100);
    /* Round the ring's end. */
    say_data(1000, 52, 40000);
    room(p, SIZE_MAX);
    assert_sequence(p, 105000);
    expect(1000, 52, UPDATE);
    assert_int_equal(last.fwd_cnt, 105000);
    assert_false(p->watch_write);
    end();
}

/* More than there is room for ends the connection. */
static void vsock__credit_of_the_guests(void **state)
{
    struct program *p;

    (void)state;
    start(0);
    p = connected(1000, 52);
    p->room = 0;
    say_data(1000, 52, BUFFER);
    expect_nothing();
    say_data(1000, 52, 1);
    expect(1000, 52, RST);
    assert_true(p->closed);
    end();
}

static void vsock__credit_of_the_hosts(void **state)
{
    static u8 data[20000];
    struct packet h = header(1000, 52, REQUEST);
    struct program *p;

    (void)state;
    for (unsigned i = 0; i < sizeof(data); i++)
        data[i] = (u8)(i * 7);
    start(0);
    h.buf_alloc = 5000;
    say_raw(&h, HEADER);
    assert_true(vd_used(&d, TX, NULL) >= 0);
    p = &prog[0];
    event(p, SOCKSTREAM_CONNECTED);
    expect(1000, 52, RESPONSE);
    input(p, data, sizeof(data));
    expect(1000, 52, RW);
    assert_int_equal(last.len, 4096);
    expect(1000, 52, RW);
    assert_int_equal(last.len, 904);
    /* Asked for once, whatever the answer */
    expect(1000, 52, ASK);
    expect_nothing();
    assert_false(p->watch_read);
    h.op = UPDATE;
    for (unsigned i = 0; i < 3; i++) {
        say_raw(&h, HEADER);
        assert_true(vd_used(&d, TX, NULL) >= 0);
        expect_nothing();
    }
    h.fwd_cnt = 1000;
    say_raw(&h, HEADER);
    assert_true(vd_used(&d, TX, NULL) >= 0);
    expect(1000, 52, RW);
    assert_int_equal(last.len, 1000);
    assert_memory_equal(last.data, data + 5000, 1000);
    expect(1000, 52, ASK);
    /* Nonsense is no credit. */
    h.fwd_cnt = 1000000;
    say_raw(&h, HEADER);
    assert_true(vd_used(&d, TX, NULL) >= 0);
    expect_nothing();
    assert_int_equal(p->input_pos, 6000);
    end();
}

static void vsock__ends_of_the_hosts(void **state)
{
    struct program *p;

    (void)state;
    start(0);
    /* It sends no more, but still reads. */
    p = connected(1000, 52);
    p->end = true;
    input(p, "last", 4);
    expect(1000, 52, RW);
    expect(1000, 52, SHUTDOWN);
    assert_int_equal(last.flags, NO_SEND);
    tx_next = 0;
    say_data(1000, 52, 100);
    assert_sequence(p, 100);
    assert_false(p->watch_read);
    say(1000, 52, RST);
    assert_true(p->closed);
    /* It is gone. */
    p = connected(1001, 52);
    p->end = p->hung_up = true;
    input(p, "last", 4);
    expect(1001, 52, RW);
    expect(1001, 52, SHUTDOWN);
    assert_int_equal(last.flags, NO_SEND | NO_RECEIVE);
    say_data(1001, 52, 100); /* was under way */
    assert_int_equal(p->got_len, 0);
    expect_nothing();
    say_flags(1001, 52, NO_SEND | NO_RECEIVE);
    expect(1001, 52, RST);
    assert_true(p->closed);
    /* It is seen to be gone by writing. */
    p = connected(1002, 52);
    p->broken = true;
    say_data(1002, 52, 100);
    expect(1002, 52, SHUTDOWN);
    assert_int_equal(last.flags, NO_RECEIVE);
    event(p, SOCKSTREAM_READABLE);
    expect(1002, 52, SHUTDOWN);
    assert_int_equal(last.flags, NO_SEND | NO_RECEIVE);
    end();
}

/* What a guest sent before it went reaches the program. */
static void vsock__what_is_left_is_delivered(void **state)
{
    struct program *p;

    (void)state;
    for (unsigned abrupt = 0; abrupt < 2; abrupt++) {
        start(0);
        p = connected(1000, 52);
        p->room = 10;
        tx_next = 0;
        say_data(1000, 52, 1000);
        say_flags(1000, 52, NO_SEND | NO_RECEIVE);
        expect_nothing();
        assert_false(p->no_send);
        assert_true(p->no_receive);
        if (abrupt) {
            say(1000, 52, RST);
            /* The ports are free again. */
            connected(1000, 52);
        }
        room(p, SIZE_MAX);
        assert_sequence(p, 1000);
        assert_true(p->closed);
        if (!abrupt)
            expect(1000, 52, RST);
        expect_nothing();
        end();
    }
}

/* 5.10.6: each is answered by an RST, and nothing else comes of it. */
static void vsock__packets_that_belong_nowhere(void **state)
{
    struct packet p;

    (void)state;
    start(0);
    for (u16 op = 0; op < 12; op++) {
        if (op == REQUEST || op == RST)
            continue;
        say(1000, 52, op);
        expect(1000, 52, RST);
        assert_int_equal(last.src_cid, HOST);
    }
    say(1000, 52, RST);
    expect_nothing();
    p = header(1000, 52, REQUEST);
    p.type = 2;
    say_raw(&p, HEADER);
    expect(1000, 52, RST);
    p = header(1000, 52, REQUEST);
    p.dst_cid = 7;
    say_raw(&p, HEADER);
    expect(1000, 52, RST);
    assert_int_equal(last.src_cid, 7);
    p = header(1000, 52, REQUEST);
    p.src_cid = 7; /* somebody else's */
    say_raw(&p, HEADER);
    expect_nothing();
    assert_int_equal(nprogs, 0);
    end();
}

static void vsock__packets_that_do_not_fit_the_state(void **state)
{
    static const u16 bad[] = {REQUEST, RESPONSE, 0, 8, 0xffff};

    (void)state;
    start(0);
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        struct program *p = connected(1000, 52);

        say(1000, 52, bad[i]);
        assert_true(p->closed);
        expect(1000, 52, RST);
        expect_nothing();
    }
    /* Data after it said there would be none */
    connected(1000, 52);
    say_flags(1000, 52, NO_SEND);
    say_data(1000, 52, 1);
    expect(1000, 52, RST);
    end();
}

static void vsock__bad_chains_break_the_device(void **state)
{
    struct packet p = header(1000, 52, RW);

    (void)state;
    start(0);
    say_raw(&p, 20);
    assert_true(vd_status(&d) & VD_NEEDS_RESET);
    end();
    start(0);
    p.len = 5000;
    say_raw(&p, HEADER + 4096);
    assert_true(vd_status(&d) & VD_NEEDS_RESET);
    end();
    create();
    begin(0);
    assert_true(vd_add(&d, RX, &(struct vd_buf){vd_alloc(b, 64, 16), 43}, 0, 1) >= 0);
    vd_kick(&d, RX);
    say(1000, 52, RW); /* to be answered */
    assert_true(vd_status(&d) & VD_NEEDS_RESET);
    end();
}

/* A guest that takes no answers is not listened to for ever. */
static void vsock__answers_are_bounded(void **state)
{
    struct packet p = header(1000, 52, RW);
    unsigned done = 0;

    (void)state;
    create();
    begin(0);
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned k = 0; k < SIZE; k++) {
            memcpy(vd_ram(b, tx_at), &p, HEADER);
            if (vd_add(&d, TX, &(struct vd_buf){tx_at, HEADER}, 1, 0) < 0)
                break;
        }
        vd_notify(&d, TX);
        fake_settle();
        while (vd_used(&d, TX, NULL) >= 0)
            done++;
    }
    assert_int_equal(done, 64);
    give(16, sizeof(struct packet));
    for (unsigned i = 0; i < 128; i++)
        expect(1000, 52, RST);
    expect_nothing();
    while (vd_used(&d, TX, NULL) >= 0)
        done++;
    assert_int_equal(done, 128);
    end();
}

static void vsock__connections_are_bounded(void **state)
{
    struct program *p;

    (void)state;
    start(0);
    for (u32 i = 0; i < CONNS; i++)
        connected(1000 + i, 52);
    say(5000, 52, REQUEST);
    expect(5000, 52, RST);
    assert_int_equal(nprogs, CONNS);
    p = new_program(0);
    assert_false(sock.on_request(sock.dev, &p->s, 7));
    p->closed = true;
    say(1000, 52, RST);
    connected(5000, 52);
    end();
}

static void vsock__a_reset_ends_all(void **state)
{
    struct program *p, *q;

    (void)state;
    start(2);
    p = connected(1000, 52);
    p->room = 0;
    say_data(1000, 52, 100);
    q = new_program(0);
    assert_true(sock.on_request(sock.dev, &q->s, 7));
    say(1, 1, RW); /* an answer is due, too */
    assert_true(vd_reset(&d));
    /* A new driver is faster than the event loop. */
    vd_start(&d, vd_mode(5), 1, SIZE);
    tx_at = vd_alloc(b, 0x20000, 4096);
    give(8, sizeof(struct packet));
    assert_true(p->closed);
    assert_true(q->closed);
    expect_nothing();
    connected(1000, 52);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vsock__says_the_guests_address),
        cmocka_unit_test(vsock__carries_bytes_in_every_mode),
        cmocka_unit_test(vsock__the_host_connects),
        cmocka_unit_test(vsock__nobody_listens),
        cmocka_unit_test(vsock__gives_up_early),
        cmocka_unit_test(vsock__what_the_host_does_not_take_waits),
        cmocka_unit_test(vsock__credit_of_the_guests),
        cmocka_unit_test(vsock__credit_of_the_hosts),
        cmocka_unit_test(vsock__ends_of_the_hosts),
        cmocka_unit_test(vsock__what_is_left_is_delivered),
        cmocka_unit_test(vsock__packets_that_belong_nowhere),
        cmocka_unit_test(vsock__packets_that_do_not_fit_the_state),
        cmocka_unit_test(vsock__bad_chains_break_the_device),
        cmocka_unit_test(vsock__answers_are_bounded),
        cmocka_unit_test(vsock__connections_are_bounded),
        cmocka_unit_test(vsock__a_reset_ends_all),
    };
    return cmocka_run_group_tests_name("dev-virtio-vsock", tests, NULL, NULL);
}
