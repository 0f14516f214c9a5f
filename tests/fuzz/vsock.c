/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's driver that keeps to the rules of rings and to none of stream sockets
 * (virtio 1.2 5.10), and programs on the host that do whatever programs may: the bytes say what
 * they do.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dev/pci/pci.h"

#include "dev/virtio/vsock.h"
#include "dev/virtio/vsock_priv.h"
#include "dev/virtio_driver.h"

#define CID 42
#define SIZE 16
#define RX 0
#define TX 1
#define PACKET_MAX 8192u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct vd_board *b;
static struct vdriver d;
static u64 tx_at, rx_at, first_free;
static u32 asked; /* the host's port of the last stream of its making */
static const uint8_t *at, *end;

static u32 take(unsigned n)
{
    u32 v = 0;

    for (unsigned i = 0; i < n && at < end; i++)
        v |= (u32)*at++ << (8 * i);
    return v;
}

static void check(bool good)
{
    if (!good)
        abort();
}

/* --- programs on the host that do whatever programs may ------------------------------------------
 */

#define PROGRAMS 8

static struct program {
    struct sockstream s;
    bool used, connecting;
} program[PROGRAMS];
static struct sockdev sock;

static struct program *live(struct sockstream *s)
{
    struct program *p = container_of(s, struct program, s);

    if (!p->used)
        abort();
    return p;
}

static struct sockstream *new_program(bool is_connecting)
{
    for (unsigned i = 0; i < PROGRAMS; i++)
        if (!program[i].used) {
            program[i] = (struct program){.used = true, .connecting = is_connecting};
            return &program[i].s;
        }
    return NULL;
}

static struct sockstream *sock_connect(struct sockdev *s, u32 port)
{
    (void)s;
    return port % 5 ? new_program(true) : NULL;
}

static void sock_accepted(struct sockstream *s, u32 port)
{
    (void)port;
    live(s);
}

static s64 sock_receive(struct sockstream *s, const struct host_iov *iov, unsigned n)
{
    u32 what = take(1) % 16;
    s64 done = 0;

    live(s);
    if (what >= 13)
        return what == 13 ? -EAGAIN : what == 14 ? 0 : -ECONNRESET;
    for (unsigned i = 0; i < n; i++) {
        memset(iov[i].base, 'x', iov[i].len);
        done += (s64)iov[i].len;
    }
    return done;
}

static s64 sock_send(struct sockstream *s, const struct host_iov *iov, unsigned n)
{
    u32 what = take(1) % 16;
    volatile u8 sum = 0;
    s64 done = 0;

    live(s);
    if (what >= 12)
        return what < 15 ? -EAGAIN : -EPIPE;
    for (unsigned i = 0; i < n; i++) {
        for (size_t k = 0; k < iov[i].len; k++)
            sum = (u8)(sum + ((const u8 *)iov[i].base)[k]);
        done += (s64)iov[i].len;
    }
    return what % 2 ? (done + 1) / 2 : done;
}

static bool sock_hung_up(struct sockstream *s)
{
    live(s);
    return take(1) % 2;
}

static void sock_shutdown(struct sockstream *s, bool receive, bool send)
{
    (void)receive;
    (void)send;
    live(s);
}

static void sock_watch(struct sockstream *s, bool readable, bool writable)
{
    (void)readable;
    (void)writable;
    if (live(s)->connecting)
        abort();
}

static void sock_close_stream(struct sockstream *s)
{
    live(s)->used = false;
}

static const struct sockdev_ops sock_ops = {.connect = sock_connect,
                                            .accepted = sock_accepted,
                                            .receive = sock_receive,
                                            .send = sock_send,
                                            .hung_up = sock_hung_up,
                                            .shutdown = sock_shutdown,
                                            .watch = sock_watch,
                                            .close_stream = sock_close_stream};

static void program_event(unsigned i, u32 what)
{
    struct program *p = &program[i % PROGRAMS];

    if (!p->used) {
        struct sockstream *s = new_program(false);

        if (s && !sock.on_request(sock.dev, s, what))
            sock_close_stream(s);
    } else if (p->connecting) {
        p->connecting = false;
        p->s.on_event(p->s.opaque, what % 2 ? SOCKSTREAM_CONNECTED : SOCKSTREAM_REFUSED);
    } else {
        p->s.on_event(p->s.opaque, 4 * (1 + what % 3));
    }
}

/* --- the guest -----------------------------------------------------------------------------------
 */

/* A driver comes: rings and buffers at the same places each time. */
static void start(u32 mode)
{
    fake_settle();
    check(vd_reset(&d));
    fake_settle();
    b->next_alloc = first_free;
    vd_start(&d, vd_mode(mode % VD_MODES), 1, SIZE);
    tx_at = vd_alloc(b, PACKET_MAX + 64, 16);
    rx_at = vd_alloc(b, PACKET_MAX + 64, 16);
}

/* Buffers for what the device has to say: of any size that holds a header. */
static void give(u32 payload)
{
    struct vd_buf v[2] = {{rx_at, 44}, {rx_at + 44, payload}};

    if (vd_status(&d) & VD_NEEDS_RESET)
        return;
    if (vd_add(&d, RX, v, 0, payload ? 2 : 1) >= 0)
        vd_kick(&d, RX);
}

/* What it said is within what this guest has said. */
static void hear(void)
{
    struct vsock_header h;
    u32 len;

    while (vd_used(&d, RX, &len) >= 0) {
        memcpy(&h, vd_ram(b, rx_at), sizeof(h));
        check(len >= sizeof(h) && len <= sizeof(h) + PACKET_MAX);
        if (h.op == VSOCK_OP_REQUEST)
            asked = h.src_port;
    }
}

static void say(void)
{
    static const u32 room[] = {0, 100, 5000, 1 << 18, UINT32_MAX};
    u32 shape = take(1), len = take(2) % PACKET_MAX, much = take(1);
    struct vsock_header h = {.src_cid = shape % 16 ? CID : take(1),
                             .dst_cid = shape % 32 ? VSOCK_CID_HOST : take(1),
                             .src_port = 1 + take(1) % 3,
                             .dst_port = shape & 32 ? 1 + take(1) % 8 : asked,
                             .type = shape & 64 ? VSOCK_TYPE_STREAM : (u16)(take(1) % 3),
                             .op = (u16)(take(1) % 9),
                             .flags = take(1) % 5,
                             .buf_alloc = room[much % ARRAY_SIZE(room)],
                             .fwd_cnt = take(much & 16 ? 4 : 1)};
    u32 sent = shape & 128 ? sizeof(h) + len : take(1) % 64;
    struct vd_buf v[3] = {{tx_at, sent}};
    unsigned pieces = 1;

    h.len = much & 32 ? take(4) : len;
    if (sent > 60) { /* the header in pieces, too */
        v[0].len = 20;
        v[1] = (struct vd_buf){tx_at + 20, 40};
        v[2] = (struct vd_buf){tx_at + 60, sent - 60};
        pieces = 3;
    }
    memcpy(vd_ram(b, tx_at), &h, sizeof(h));
    if (!sent || vd_add(&d, TX, v, pieces, 0) < 0)
        return;
    vd_kick(&d, TX);
}

static void one(void)
{
    switch (take(1) % 8) {
    case 0:
    case 1:
    case 2:
        say();
        break;
    case 3:
        give(take(2) % PACKET_MAX);
        break;
    case 4:
        program_event(take(1), take(1));
        break;
    case 5:
        if (take(1) % 8 == 0 || (vd_status(&d) & VD_NEEDS_RESET))
            start(take(1));
        break;
    default:
        fake_settle();
        while (vd_used(&d, TX, NULL) >= 0)
            ;
        hear();
        break;
    }
}

static void create(void)
{
    b = vd_board_new();
    sock = (struct sockdev){.ops = &sock_ops, .cid = CID};
    virtio_vsock_create(&b->m->vm, b->host, PCI_DEVFN(1, 0), "vsock0", &sock);
    vd_attach(&d, b, PCI_DEVFN(1, 0));
    first_free = b->next_alloc;
}

/* Every stream is closed when the device is reset, and its memory is bounded all the while. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    at = data;
    end = data + size;
    if (!b)
        create();
    start(take(1));
    while (at < end)
        one();
    vd_reset(&d);
    fake_settle();
    check(!vd_status(&d));
    for (unsigned i = 0; i < PROGRAMS; i++)
        check(!program[i].used);
    return 0;
}
