/* SPDX-License-Identifier: Apache-2.0 */
/* The network device over all ring layouts, with a network that only records and replays. */
#include "dev/virtio/net.h"

#include <errno.h>
#include <string.h>

#include "core/backend.h"
#include "dev/pci/host.h"
#include "dev/virtio_move.h"
#include "test.h"

#define DEVFN PCI_DEVFN(2, 0)
#define HDR NETDEV_HDR_SIZE
#define RX 0
#define TX 1
#define F(n) (1ull << (n))
#define F_ALL                                                                                      \
    (F(0) | F(1) | F(2) | F(5) | F(7) | F(8) | F(9) | F(11) | F(12) | F(13) | F(15) | F(16) |      \
     F(17) | F(18) | F(23))
#define F_MRG F(15)
#define F_CTRL F(17)
#define NEEDS_CSUM 1
#define DATA_VALID 2
#define TCPV4 1

/* --- the network */

static struct {
    struct netdev n;
    u8 sent[8][HDR + 70000];
    size_t sent_len[8];
    unsigned nsent, refuse; /* refuse: so many sends say -EAGAIN first */
    const u8 *frame;        /* what receive gives, `frames` times */
    size_t frame_len;
    unsigned frames;
    bool readable, writable;
    u32 offloads;
    unsigned queues;
    struct vdriver *reset_in; /* receive and send reset this driver's device meanwhile */
    struct device *unplug_in; /* they take this device off the bus */
} net;

static struct vdriver drv;
static struct vd_board *board;

static void disturb(void)
{
    struct vdriver *d = net.reset_in;
    struct device *dev = net.unplug_in;

    net.unplug_in = NULL;
    if (dev) {
        vm_lock(&board->m->vm);
        dev->ops->unplug(dev);
        vm_unlock(&board->m->vm);
    }

    net.reset_in = NULL;
    if (d) {
        /* Not over before the frame's memory is given back. */
        assert_false(vd_reset(d));
        assert_int_not_equal(vd_status(d), 0);
    }
}

static int net_send(struct netdev *n, unsigned queue, const struct host_iov *iov, unsigned niov)
{
    size_t at = 0;

    (void)n;
    assert_int_equal(queue, 0);
    if (net.refuse) {
        net.refuse--;
        return -EAGAIN;
    }
    disturb();
    if (net.nsent == ARRAY_SIZE(net.sent))
        return 0;
    for (unsigned i = 0; i < niov; i++) {
        memcpy(net.sent[net.nsent] + at, iov[i].base, iov[i].len);
        at += iov[i].len;
    }
    net.sent_len[net.nsent++] = at;
    return 0;
}

static s64 net_receive(struct netdev *n, unsigned queue, const struct host_iov *iov, unsigned niov)
{
    size_t at = 0;

    (void)n;
    (void)queue;
    disturb();
    if (!net.frames)
        return -EAGAIN;
    net.frames--;
    for (unsigned i = 0; i < niov && at < net.frame_len; i++) {
        size_t part = net.frame_len - at < iov[i].len ? net.frame_len - at : iov[i].len;

        memcpy(iov[i].base, net.frame + at, part);
        at += part;
    }
    return at < net.frame_len ? -EMSGSIZE : (s64)at;
}

static void net_want_readable(struct netdev *n, unsigned queue, bool on)
{
    (void)n;
    (void)queue;
    net.readable = on;
}

static void net_want_writable(struct netdev *n, unsigned queue)
{
    (void)n;
    (void)queue;
    net.writable = true;
}

static void net_set_offloads(struct netdev *n, u32 offloads)
{
    (void)n;
    net.offloads = offloads;
}

static void net_set_queues(struct netdev *n, unsigned queues)
{
    (void)n;
    net.queues = queues;
}

static const struct netdev_ops net_ops = {.send = net_send,
                                          .receive = net_receive,
                                          .want_readable = net_want_readable,
                                          .want_writable = net_want_writable,
                                          .set_offloads = net_set_offloads,
                                          .set_queues = net_set_queues};

/* --- the guest */

static u8 frame[HDR + 70000];

static unsigned nqueues;

/* A machine on a network where nothing has happened yet. */
static struct vd_board *create(void)
{
    struct virtio_net_config c = {.net = &net.n, .name = "net0", .mac = {0x52, 0x54, 0, 1, 2, 3}};
    struct vd_board *b = vd_board_new();

    memset(&net, 0, sizeof(net));
    net.n.ops = &net_ops;
    net.n.queues = nqueues;
    net.n.offloads = NETDEV_CSUM | NETDEV_TSO4 | NETDEV_TSO6 | NETDEV_TSO_ECN;
    assert_non_null(virtio_net_create(&b->m->vm, b->host, DEVFN, &c));
    return b;
}

static void new_device(unsigned queues)
{
    nqueues = queues;
    board = create();
    memset(&drv, 0, sizeof(drv));
    vd_attach(&drv, board, DEVFN);
    for (size_t i = 0; i < sizeof(frame); i++)
        frame[i] = (u8)(i * 31 + i / 256);
    memset(frame, 0, HDR);
}

static void start(unsigned mode, u64 features)
{
    vd_start(&drv, vd_mode(mode), features, 256);
    fake_settle();
}

/* A received frame's buffer of n bytes for the driver to offer. */
static u64 offer(u32 n)
{
    u64 at = vd_alloc(board, n, 16);

    assert_true(vd_add(&drv, RX, &(struct vd_buf){at, n}, 0, 1) >= 0);
    return at;
}

static void arrives(const u8 *f, size_t len, unsigned times)
{
    net.frame = f;
    net.frame_len = len;
    net.frames = times;
    if (net.readable)
        net.n.on_readable(net.n.dev, 0);
    fake_settle();
}

/* Offers the frame to send in `pieces` parts. */
static void send_pieces(size_t len, unsigned pieces)
{
    struct vd_buf b[64];
    size_t at = 0;

    for (unsigned i = 0; i < pieces; i++) {
        size_t n = i + 1 == pieces ? len - at : len / pieces;

        b[i] = (struct vd_buf){vd_alloc(board, n, 1), (u32)n};
        memcpy(vd_ram(board, b[i].addr), frame + at, n);
        at += n;
    }
    assert_true(vd_add(&drv, TX, b, pieces, 0) >= 0);
    vd_kick(&drv, TX);
    fake_settle();
}

static u8 command(u8 class, u8 cmd, const void *data, u32 len)
{
    u64 at = vd_alloc(board, len + 3, 1);
    struct vd_buf b[2] = {{at, len + 2}, {at + len + 2, 1}};
    unsigned q = drv.features & F(22) ? 4 : 2;

    vd_ram(board, at)[0] = class;
    vd_ram(board, at)[1] = cmd;
    memcpy(vd_ram(board, at) + 2, data, len);
    vd_ram(board, at)[len + 2] = 0xff;
    assert_true(vd_add(&drv, q, b, 1, 1) >= 0);
    vd_kick(&drv, q);
    fake_settle();
    assert_true(vd_used(&drv, q, NULL) >= 0);
    return vd_ram(board, at)[len + 2];
}

/* --- */

static void net__tells_its_address_and_link(void **state)
{
    (void)state;
    new_device(1);
    start(0, F_ALL);
    assert_int_equal(vd_dev_get(&drv, 0, 4), 0x01005452);
    assert_int_equal(vd_dev_get(&drv, 4, 2), 0x0302);
    assert_int_equal(vd_dev_get(&drv, 6, 2), 1);
    net.n.on_link(net.n.dev, false);
    assert_int_equal(vd_dev_get(&drv, 6, 2), 0);
    assert_int_equal(vd_config_interrupts(&drv), 1);
    assert_int_equal(net.offloads, NETDEV_CSUM | NETDEV_TSO4 | NETDEV_TSO6 | NETDEV_TSO_ECN);
    /* The next driver knows of none of it. */
    assert_true(vd_reset(&drv));
    fake_settle();
    assert_int_equal(net.offloads, 0);
    assert_false(net.readable);
    vd_board_free(board);
}

static void net__sends_in_all_modes(void **state)
{
    (void)state;
    for (unsigned mode = 0; mode < VD_MODES; mode++) {
        new_device(1);
        start(mode, F_ALL);
        for (unsigned i = 0; i < 6; i++) {
            static const size_t len[] = {HDR + 14, HDR + 60, 1514, 2100, 40000, HDR + 65549};

            send_pieces(len[i], 1 + 3 * i);
            assert_int_equal(net.nsent, i + 1);
            assert_int_equal(net.sent_len[i], len[i]);
            assert_memory_equal(net.sent[i], frame, len[i]);
            assert_true(vd_used(&drv, TX, NULL) >= 0);
        }
        assert_true(vd_interrupts(&drv, TX) > 0);
        vd_board_free(board);
    }
}

static void put16(size_t at, u16 v)
{
    memcpy(frame + at, &v, 2);
}

static void net__drops_frames_that_were_not_agreed_on(void **state)
{
    (void)state;
    new_device(1);
    start(0, F(15) | F(0) | F(11)); /* checksums and TSO4 */
    send_pieces(HDR + 13, 1);       /* no Ethernet header */
    send_pieces(11, 1);             /* no frame header */
    send_pieces(HDR + NETDEV_FRAME_MAX + 1, 1);
    frame[1] = 4; /* TCPV6 */
    frame[0] = NEEDS_CSUM;
    put16(4, 1460);
    send_pieces(2000, 1);
    frame[1] = 77;
    send_pieces(2000, 1);
    frame[1] = TCPV4;
    put16(4, 0); /* segments of nothing */
    send_pieces(2000, 1);
    put16(4, 1460);
    frame[0] = 0; /* cut, but its checksum complete */
    send_pieces(2000, 1);
    frame[0] = NEEDS_CSUM;
    put16(6, 1990);
    put16(8, 0xffff); /* a checksum far behind the end */
    send_pieces(2000, 1);
    put16(6, 1986);
    put16(8, 1);
    send_pieces(2000, 1); /* one byte behind it */
    assert_int_equal(net.nsent, 0);
    put16(8, 0);
    send_pieces(2000, 1);
    assert_int_equal(net.nsent, 1);
    /* All came back. */
    for (unsigned i = 0; i < 10; i++)
        assert_true(vd_used(&drv, TX, NULL) >= 0);
    assert_int_equal(vd_status(&drv) & VD_NEEDS_RESET, 0);
    vd_board_free(board);
}

static void net__waits_for_a_full_network(void **state)
{
    (void)state;
    for (unsigned mode = 0; mode < 2; mode++) {
        new_device(1);
        start(mode, F_ALL);
        net.refuse = 2;
        send_pieces(100, 1);
        send_pieces(101, 1);
        assert_int_equal(net.nsent, 0);
        assert_true(net.writable);
        net.refuse = 0;
        net.n.on_writable(net.n.dev, 0);
        fake_settle();
        assert_int_equal(net.nsent, 2);
        assert_int_equal(net.sent_len[0], 100);
        assert_int_equal(net.sent_len[1], 101);
        vd_board_free(board);
    }
}

static void net__receives_into_merged_buffers(void **state)
{
    (void)state;
    for (unsigned mode = 0; mode < VD_MODES; mode++) {
        u64 at[60];
        u32 len, got = 0;
        u16 buffers;

        new_device(1);
        start(mode, F_ALL);
        for (unsigned i = 0; i < 60; i++)
            at[i] = offer(1500);
        vd_kick(&drv, RX);
        fake_settle();
        assert_true(net.readable);
        arrives(frame, HDR + 40000, 1);
        memcpy(&buffers, vd_ram(board, at[0]) + 10, 2);
        assert_int_equal(buffers, 27);
        for (unsigned i = 0; i < buffers; i++) {
            u32 skip = i ? 0 : HDR;

            assert_true(vd_used(&drv, RX, &len) >= 0);
            assert_memory_equal(vd_ram(board, at[i]) + skip, frame + got + skip, len - skip);
            got += len;
        }
        assert_int_equal(got, HDR + 40000);
        assert_int_equal(vd_used(&drv, RX, NULL), -1);
        assert_true(vd_interrupts(&drv, RX) > 0);
        /* One buffer for a small one, by way of the few that are left. */
        arrives(frame, HDR + 60, 1);
        assert_true(vd_used(&drv, RX, &len) >= 0);
        assert_int_equal(len, HDR + 60);
        vd_board_free(board);
    }
}

static void net__keeps_a_frame_until_there_are_buffers(void **state)
{
    u32 len, got = 0;

    (void)state;
    new_device(1);
    start(2, F_ALL);
    arrives(frame, HDR + 5000, 2);
    assert_int_equal(net.frames, 2); /* nobody looked */
    assert_false(net.readable);
    offer(1500);
    vd_kick(&drv, RX);
    fake_settle();
    assert_int_equal(net.frames, 1);
    assert_int_equal(vd_used(&drv, RX, NULL), -1);
    for (unsigned i = 0; i < 3; i++)
        offer(1500);
    vd_kick(&drv, RX);
    fake_settle();
    while (vd_used(&drv, RX, &len) >= 0)
        got += len;
    assert_int_equal(got, HDR + 5000);
    vd_board_free(board);
}

static void net__receives_into_single_buffers(void **state)
{
    u32 len;

    (void)state;
    new_device(1);
    start(0, F_ALL & ~F_MRG);
    offer(1600);
    offer(1600);
    vd_kick(&drv, RX);
    fake_settle();
    arrives(frame, HDR + 1600, 1); /* too long: dropped */
    assert_int_equal(vd_used(&drv, RX, NULL), -1);
    arrives(frame, 1600, 2);
    for (unsigned i = 0; i < 2; i++) {
        assert_true(vd_used(&drv, RX, &len) >= 0);
        assert_int_equal(len, 1600);
    }
    vd_board_free(board);
}

static void net__hides_what_the_driver_did_not_ask_for(void **state)
{
    u64 at;

    (void)state;
    new_device(1);
    start(0, F_MRG);
    at = offer(2000);
    for (unsigned i = 0; i < 40; i++)
        offer(2000);
    vd_kick(&drv, RX);
    fake_settle();
    frame[1] = TCPV4;
    arrives(frame, HDR + 1000, 1);
    frame[1] = 0;
    frame[0] = NEEDS_CSUM;
    arrives(frame, HDR + 1000, 1);
    arrives(frame, HDR + 13, 1); /* no frame */
    assert_int_equal(vd_used(&drv, RX, NULL), -1);
    frame[0] = DATA_VALID;
    arrives(frame, HDR + 1000, 1);
    assert_true(vd_used(&drv, RX, NULL) >= 0);
    assert_int_equal(vd_ram(board, at)[0], 0);
    vd_board_free(board);
}

/* Frames that are dropped have been written to the guest's memory all the same. */
static void net__tells_the_engine_of_dropped_frames(void **state)
{
    (void)state;
    for (unsigned merged = 0; merged < 2; merged++) {
        u64 at;

        new_device(1);
        start(0, merged ? F_MRG : 0);
        for (unsigned i = 0; i < 40; i++)
            at = offer(2000);
        vd_kick(&drv, RX);
        fake_settle();
        board->m->written_gpa = 0;
        arrives(frame, HDR + 13, 1);
        assert_int_not_equal(board->m->written_gpa, 0);
        board->m->written_gpa = 0;
        if (!merged) /* does not fit */
            arrives(frame, HDR + 3000, 1);
        else
            assert_true(vd_reset(&drv));
        assert_in_range(board->m->written_gpa, 1, at);
        vd_board_free(board);
    }
}

static void net__survives_resets_in_the_middle(void **state)
{
    (void)state;
    for (unsigned mode = 0; mode < 4; mode++) {
        for (unsigned i = 0; i < 6; i++) {
            new_device(1);
            start(mode, F_ALL);
            for (unsigned k = 0; k < 50; k++)
                offer(1500);
            vd_kick(&drv, RX);
            fake_settle();
            net.reset_in = &drv;
            if (i % 2)
                send_pieces(i < 3 ? 100 : 9000, 2);
            else
                arrives(frame, HDR + 3000, 2);
            assert_null(net.reset_in);
            /* Everything was given back. */
            assert_int_equal(vd_status(&drv), 0);
            vd_board_free(board);
        }
    }
}

static void net__obeys_commands(void **state)
{
    static const u8 mac[6] = {2, 3, 4, 5, 6, 7}, group[6] = {3, 3, 4, 5, 6, 7};
    u8 tables[4 + 12 + 4 + 6] = {2}, on = 1;
    u64 offloads = F(1) | F(7);

    (void)state;
    new_device(1);
    start(1, F_ALL);
    assert_int_equal(command(0, 0, &on, 1), 0);
    assert_int_equal(command(0, 6, &on, 1), 1);
    tables[16] = 1;
    assert_int_equal(command(1, 0, tables, sizeof(tables)), 0);
    assert_int_equal(command(1, 0, tables, sizeof(tables) - 1), 1);
    tables[3] = 0xff;
    assert_int_equal(command(1, 0, tables, sizeof(tables)), 1);
    assert_int_equal(command(1, 1, mac, 6), 0);
    assert_int_equal(vd_dev_get(&drv, 0, 4), 0x05040302);
    assert_int_equal(command(1, 1, group, 6), 1);
    assert_int_equal(command(1, 1, mac, 5), 1);
    assert_int_equal(command(5, 0, &offloads, 8), 0);
    assert_int_equal(net.offloads, NETDEV_CSUM | NETDEV_TSO4);
    offloads = F(10);
    assert_int_equal(command(5, 0, &offloads, 8), 1);
    assert_int_equal(net.offloads, NETDEV_CSUM | NETDEV_TSO4);
    assert_int_equal(command(4, 0, "\1\0", 2), 1); /* no such feature */
    assert_int_equal(command(77, 0, "", 0), 1);
    vd_board_free(board);
}

static void net__uses_the_queues_it_is_told_to(void **state)
{
    (void)state;
    new_device(2);
    start(0, F_ALL | F(22));
    assert_int_equal(vd_dev_get(&drv, 8, 2), 2);
    assert_int_equal(command(4, 0, "\2\0", 2), 0);
    assert_int_equal(net.queues, 2);
    assert_int_equal(command(4, 0, "\0\0", 2), 1);
    assert_int_equal(command(4, 0, "\3\0", 2), 1);
    assert_int_equal(net.queues, 2);
    /* A driver that does not know of them finds the control queue after the first pair. */
    start(0, F_ALL);
    assert_int_equal(net.queues, 1);
    assert_int_equal(command(0, 0, "\1", 1), 0);
    vd_board_free(board);
}

static void net__is_broken_by_bad_buffers(void **state)
{
    u64 at;

    (void)state;
    new_device(1);
    start(0, F_ALL);
    offer(HDR - 1);
    vd_kick(&drv, RX);
    fake_settle();
    assert_true(vd_status(&drv) & VD_NEEDS_RESET);
    start(0, F_ALL);
    assert_int_equal(vd_status(&drv) & VD_NEEDS_RESET, 0);
    at = vd_alloc(board, 64, 1); /* a command with no room for an answer */
    vd_add(&drv, 2, &(struct vd_buf){at, 3}, 1, 0);
    vd_kick(&drv, 2);
    fake_settle();
    assert_true(vd_status(&drv) & VD_NEEDS_RESET);
    assert_true(vd_reset(&drv));
    vd_board_free(board);
}

static void net__refuses_features_without_their_ground(void **state)
{
    static const u64 bad[] = {F(7), F(11), F(1) | F(9), F(0) | F(13), F(23), F(18), F(2)};

    (void)state;
    new_device(1);
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        u64 f = bad[i] | VD_F_VERSION_1;

        assert_true(vd_reset(&drv));
        vd_put(&drv, VD_STATUS, 1, VD_ACKNOWLEDGE | VD_DRIVER);
        vd_put(&drv, VD_DRIVER_FEATURE_SELECT, 4, 0);
        vd_put(&drv, VD_DRIVER_FEATURE, 4, (u32)f);
        vd_put(&drv, VD_DRIVER_FEATURE_SELECT, 4, 1);
        vd_put(&drv, VD_DRIVER_FEATURE, 4, (u32)(f >> 32));
        vd_put(&drv, VD_STATUS, 1, VD_ACKNOWLEDGE | VD_DRIVER | VD_FEATURES_OK);
        assert_int_equal(vd_status(&drv) & VD_FEATURES_OK, 0);
    }
    vd_board_free(board);
}

static void net__goes_on_in_another_machine(void **state)
{
    (void)state;
    for (unsigned mode = 0; mode < VD_MODES; mode++) {
        u64 at[20];
        u32 len;

        new_device(1);
        start(mode, F_ALL);
        for (unsigned i = 0; i < 20; i++)
            at[i] = offer(1500);
        vd_kick(&drv, RX);
        fake_settle(); /* they are taken */
        arrives(frame, HDR + 3000, 1);
        for (unsigned i = 0; i < 3; i++) {
            u32 part[3] = {1500, 1500, HDR};

            if (i == 1)
                vd_move(&board, &drv, create); /* with two to be looked at */
            assert_true(vd_used(&drv, RX, &len) >= 0);
            assert_int_equal(len, part[i]);
        }
        fake_settle();
        assert_true(net.readable);
        assert_int_equal(net.offloads, NETDEV_CSUM | NETDEV_TSO4 | NETDEV_TSO6 | NETDEV_TSO_ECN);
        arrives(frame, HDR + 100, 1);
        assert_true(vd_used(&drv, RX, &len) >= 0);
        assert_int_equal(len, HDR + 100);
        assert_memory_equal(vd_ram(board, at[3] + HDR), frame + HDR, 100);
        /* Frames the old network had no room for go to the new one. */
        net.refuse = 2;
        send_pieces(100, 1);
        send_pieces(9000, 3);
        assert_int_equal(net.nsent, 0);
        vd_move(&board, &drv, create);
        assert_int_equal(vd_used(&drv, TX, NULL), -1);
        fake_settle();
        assert_int_equal(net.nsent, 2);
        assert_int_equal(net.sent_len[1], 9000);
        assert_memory_equal(net.sent[1], frame, 9000);
        assert_true(vd_used(&drv, TX, NULL) >= 0);
        assert_true(vd_used(&drv, TX, NULL) >= 0);
        assert_true(vd_interrupts(&drv, TX) > 0);
        send_pieces(100, 1);
        assert_int_equal(net.nsent, 3);
        assert_int_equal(vd_status(&drv) & VD_NEEDS_RESET, 0);
        vd_board_free(board);
    }
}

/* What was put back for the state is taken again. */
static void net__the_saved_machine_goes_on(void **state)
{
    (void)state;
    for (unsigned mode = 0; mode < VD_MODES; mode++) {
        u32 len, got = 0;

        new_device(1);
        start(mode, F_ALL);
        for (unsigned i = 0; i < 3; i++)
            offer(1500);
        vd_kick(&drv, RX);
        fake_settle();
        arrives(frame, HDR + 5000, 1); /* waits for a fourth buffer */
        assert_int_equal(vd_used(&drv, RX, NULL), -1);
        net.refuse = 1;
        send_pieces(100, 1);
        state_save(board->m);
        fake_settle();
        assert_int_equal(net.nsent, 1);
        offer(1500);
        assert_true(vd_kick(&drv, RX));
        fake_settle();
        while (vd_used(&drv, RX, &len) >= 0)
            got += len;
        assert_int_equal(got, HDR + 5000);
        vd_board_free(board);
    }
}

static void net__commands_outlive_the_machine(void **state)
{
    static const u8 mac[6] = {2, 3, 4, 5, 6, 7};
    u64 offloads = F(1) | F(7);

    (void)state;
    for (unsigned mode = 0; mode < VD_MODES; mode++) {
        new_device(2);
        start(mode, F_ALL | F(22));
        assert_int_equal(command(1, 1, mac, 6), 0);
        assert_int_equal(command(5, 0, &offloads, 8), 0);
        assert_int_equal(command(4, 0, "\2\0", 2), 0);
        vd_move(&board, &drv, create);
        fake_settle();
        assert_int_equal(vd_dev_get(&drv, 0, 4), 0x05040302);
        assert_int_equal(net.offloads, NETDEV_CSUM | NETDEV_TSO4);
        assert_int_equal(net.queues, 2);
        assert_int_equal(vd_config_interrupts(&drv), 0);
        net.n.on_link(net.n.dev, false);
        vd_config_interrupts(&drv);
        /* The new network's link is up. */
        vd_move(&board, &drv, create);
        assert_int_equal(vd_config_interrupts(&drv), 1);
        assert_int_equal(vd_dev_get(&drv, 6, 2), 1);
        fake_settle();
        assert_int_equal(net.queues, 2);
        /* A reset forgets it as ever. */
        assert_true(vd_reset(&drv));
        fake_settle();
        assert_int_equal(vd_dev_get(&drv, 0, 4), 0x01005452);
        assert_int_equal(net.queues, 1);
        vd_board_free(board);
    }
}

static void net__refuses_what_it_cannot_be(void **state)
{
    static const struct {
        u8 off, val;
    } bad[] = {{2, 1 /* a group's address */}, {8, 2}, {12, 0xff}, {15, 0 /* pairs */}, {15, 3}};
    struct state_file *f;
    size_t len;
    u8 *bytes;

    (void)state;
    new_device(2);
    start(0, F_ALL | F(22));
    f = state_save(board->m);
    bytes = state_bytes(f, "virtio-net", &len);
    vd_board_free(board);
    board = create();
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        u8 was = bytes[bad[i].off];

        bytes[bad[i].off] = bad[i].val;
        assert_int_equal(state_load_device(board->m, "virtio-net", bytes, len), -EINVAL);
        bytes[bad[i].off] = was;
    }
    assert_int_equal(state_load_device(board->m, "virtio-net", bytes, len), 0);
    state_refuses_pieces(board->m, f, "virtio-net");
    vd_board_free(board);
    nqueues = 1;
    board = create();
    assert_int_equal(state_load_device(board->m, "virtio-net", bytes, len), -EINVAL);
    vd_board_free(board);
}

/* While it sends, on a vCPU's thread; while it receives, on the loop's. */
static void net__is_unplugged_in_the_middle(void **state)
{
    (void)state;
    for (unsigned receiving = 0; receiving < 2; receiving++) {
        struct device *dev;

        new_device(1);
        dev = board->m->vm.devices;
        assert_string_equal(dev->ops->name, "virtio-net");
        start(0, F_ALL);
        offer(70000);
        vd_kick(&drv, RX);
        fake_settle();
        net.unplug_in = dev;
        if (receiving)
            arrives(frame, 1514, 1);
        else
            send_pieces(1514, 1);
        assert_null(net.unplug_in);
        assert_int_equal(vd_config(board, DEVFN, 0, 4), 0xffffffff);
        assert_int_equal(vd_interrupts(&drv, RX) + vd_interrupts(&drv, TX), 0);
        assert_true(vd_used(&drv, RX, NULL) < 0);
        assert_true(vd_used(&drv, TX, NULL) < 0);
        vm_remove_device(&board->m->vm, dev);
        assert_null(net.n.on_readable);
        assert_null(net.n.on_link);
        fake_settle();
        vd_board_free(board);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(net__tells_its_address_and_link),
        cmocka_unit_test(net__sends_in_all_modes),
        cmocka_unit_test(net__drops_frames_that_were_not_agreed_on),
        cmocka_unit_test(net__waits_for_a_full_network),
        cmocka_unit_test(net__receives_into_merged_buffers),
        cmocka_unit_test(net__keeps_a_frame_until_there_are_buffers),
        cmocka_unit_test(net__receives_into_single_buffers),
        cmocka_unit_test(net__hides_what_the_driver_did_not_ask_for),
        cmocka_unit_test(net__tells_the_engine_of_dropped_frames),
        cmocka_unit_test(net__survives_resets_in_the_middle),
        cmocka_unit_test(net__obeys_commands),
        cmocka_unit_test(net__uses_the_queues_it_is_told_to),
        cmocka_unit_test(net__is_broken_by_bad_buffers),
        cmocka_unit_test(net__refuses_features_without_their_ground),
        cmocka_unit_test(net__goes_on_in_another_machine),
        cmocka_unit_test(net__the_saved_machine_goes_on),
        cmocka_unit_test(net__commands_outlive_the_machine),
        cmocka_unit_test(net__refuses_what_it_cannot_be),
        cmocka_unit_test(net__is_unplugged_in_the_middle),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
