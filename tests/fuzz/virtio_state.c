/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A state file that is not what a machine has saved: each virtio device is saved in the middle of
 * good order, some bytes of the state are others or all of them are, it is loaded, and guest and
 * backends go on. Loaded or not, a reset brings everything back.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/backend.h"
#include "dev/pci/pci.h"
#include "dev/virtio/balloon.h"
#include "dev/virtio/blk.h"
#include "dev/virtio/console.h"
#include "dev/virtio/fs.h"
#include "dev/virtio/net.h"
#include "dev/virtio/rng.h"
#include "dev/virtio/vsock.h"
#include "dev/virtio_driver.h"

#define SIZE 8 /* of queues */
#define MODES 4
#define STATE_MAX 4096
#define SECTORS 32u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct vd_board *b;
static const uint8_t *at, *end;
static u8 ram[FAKE_RAM_SIZE]; /* in good order */
static u64 bufs;

static u32 take(unsigned n)
{
    u32 v = 0;

    for (unsigned i = 0; i < n && at < end; i++)
        v |= (u32)*at++ << (8 * i);
    return v;
}

/* --- backends ------------------------------------------------------------------------------------
 */

static unsigned calls; /* of backends: some are refused */

static void touch(const struct host_iov *iov, unsigned n, bool write)
{
    for (unsigned i = 0; i < n; i++) {
        volatile u8 *p = iov[i].base;

        for (size_t k = 0; k < iov[i].len; k += 64) {
            u8 v = p[k];

            p[k] = write ? (u8)calls : v;
        }
    }
}

static struct chardev chr[2];

static size_t chr_write(struct chardev *c, const u8 *buf, size_t n)
{
    (void)c;
    (void)buf;
    return ++calls % 3 ? n : n / 2;
}

static int disk_move(struct blockdev *d, const struct host_iov *iov, unsigned n, u64 off)
{
    (void)d;
    (void)off;
    touch(iov, n, true);
    return ++calls % 5 ? 0 : -EIO;
}

static int disk_flush(struct blockdev *d)
{
    (void)d;
    return 0;
}

static int disk_discard(struct blockdev *d, u64 off, u64 len)
{
    return off + len <= d->size ? 0 : (abort(), 0);
}

static int disk_zero(struct blockdev *d, u64 off, u64 len, bool unmap)
{
    (void)unmap;
    return disk_discard(d, off, len);
}

static const struct blockdev_ops disk_ops = {.readv = disk_move,
                                             .writev = disk_move,
                                             .flush = disk_flush,
                                             .discard = disk_discard,
                                             .write_zeroes = disk_zero};
static struct blockdev disk = {.ops = &disk_ops, .size = SECTORS * 512ull, .can_discard = true};

static struct netdev net;
static unsigned pairs;

static int net_send(struct netdev *n, unsigned queue, const struct host_iov *iov, unsigned niov)
{
    if (queue >= n->queues)
        abort();
    touch(iov, niov, false);
    return ++calls % 4 ? 0 : -EAGAIN;
}

static s64 net_receive(struct netdev *n, unsigned queue, const struct host_iov *iov, unsigned niov)
{
    size_t len = 0;

    if (queue >= n->queues)
        abort();
    if (++calls % 3 == 0)
        return -EAGAIN;
    touch(iov, niov, true);
    for (unsigned i = 0; i < niov; i++)
        len += iov[i].len;
    return (s64)(len < 100 ? len : 100);
}

static void net_want(struct netdev *n, unsigned queue)
{
    if (queue >= n->queues)
        abort();
}

static void net_want_readable(struct netdev *n, unsigned queue, bool on)
{
    (void)on;
    net_want(n, queue);
}

static void net_set_offloads(struct netdev *n, u32 offloads)
{
    if (offloads & ~n->offloads)
        abort();
}

static void net_set_queues(struct netdev *n, unsigned queues)
{
    if (!queues || queues > n->queues)
        abort();
    pairs = queues;
}

static const struct netdev_ops net_ops = {.send = net_send,
                                          .receive = net_receive,
                                          .want_writable = net_want,
                                          .want_readable = net_want_readable,
                                          .set_offloads = net_set_offloads,
                                          .set_queues = net_set_queues};

static struct sockstream *sock_connect(struct sockdev *s, u32 port)
{
    (void)s;
    (void)port;
    return NULL;
}

static const struct sockdev_ops sock_ops = {.connect = sock_connect};
static struct sockdev sock = {.ops = &sock_ops, .cid = 42};

static int share_send(struct sharedev *s, const struct host_iov *iov, unsigned n)
{
    (void)s;
    touch(iov, n, false);
    return -ENOTCONN;
}

static void share_close(struct sharedev *s)
{
    (void)s;
}

static const struct sharedev_ops share_ops = {.send = share_send,
                                              .try_send = share_send,
                                              .receive = share_send,
                                              .shutdown = share_close,
                                              .close = share_close};
static struct sharedev share = {.ops = &share_ops, .tag = "x"};

static void no_thread(void (*fn)(void *), void *arg)
{
    (void)fn;
    (void)arg;
}

/* --- the devices ---------------------------------------------------------------------------------
 */

static struct device *create_console(u8 devfn)
{
    struct virtio_console_config c = {
        .name = "console0", .console = &chr[0], .port = {{"p", &chr[1]}}, .nports = 1};

    for (unsigned i = 0; i < 2; i++)
        chr[i] = (struct chardev){.write = chr_write};
    return virtio_console_create(&b->m->vm, b->host, devfn, &c);
}

static struct device *create_rng(u8 devfn)
{
    return virtio_rng_create(&b->m->vm, b->host, devfn, "rng0");
}

static struct device *create_balloon(u8 devfn)
{
    return virtio_balloon_create(&b->m->vm, b->host, devfn, "balloon0", 4096);
}

static struct device *create_blk(u8 devfn)
{
    struct virtio_blk_config c = {.disk = &disk, .name = "blk0", .queues = 2};

    return virtio_blk_create(&b->m->vm, b->host, devfn, &c);
}

static struct device *create_net(u8 devfn)
{
    struct virtio_net_config c = {.net = &net, .name = "net0", .mac = {2}};

    net = (struct netdev){.ops = &net_ops, .queues = 2, .mtu = 1500, .offloads = 31};
    return virtio_net_create(&b->m->vm, b->host, devfn, &c);
}

static struct device *create_vsock(u8 devfn)
{
    return virtio_vsock_create(&b->m->vm, b->host, devfn, "vsock0", &sock);
}

static struct device *create_fs(u8 devfn)
{
    return virtio_fs_create(&b->m->vm, b->host, devfn, "fs0", &share);
}

/* queues: which way their buffers go. */
static const struct {
    struct device *(*create)(u8 devfn);
    const char *queues;
    u64 features;
} kind[] = {
    {create_rng, "i", 0},
    {create_console, "ioioio", 2},
    {create_balloon, "ooi", 4 | 32},
    {create_blk, "bb", BIT64(9) | BIT64(11) | BIT64(12) | BIT64(13) | BIT64(14)},
    {create_net, "ioiob",
     BIT64(0) | BIT64(1) | BIT64(2) | BIT64(3) | BIT64(15) | BIT64(17) | BIT64(22)},
    {create_vsock, "ioi", 1},
    {create_fs, "bb", 0},
};
#define KINDS (sizeof(kind) / sizeof(kind[0]))

static struct {
    struct device *dev;
    struct vdriver d;
    u32 config[16];
    struct {
        u8 bytes[STATE_MAX];
        size_t len;
        u64 notify[VD_QUEUES];
    } state[MODES];
} each[KINDS];

/* Every queue has some chains, which are available. */
static void fill_queues(unsigned k, struct vdriver *d)
{
    for (unsigned q = 0; q < d->nqueues; q++)
        for (unsigned i = 0; i < 3; i++) {
            struct vd_buf v[3] = {{bufs + 64 * i, 64}, {bufs + 1024 * (i + 1), 1024}, {bufs, 1}};
            char way = kind[k].queues[q];

            if (way == 'b')
                vd_add(d, q, v, 1, 2);
            else
                vd_add(d, q, v + (way == 'i'), way == 'o', way == 'i');
        }
}

static void reset(unsigned k)
{
    struct device *dev = each[k].dev;
    u8 devfn = PCI_DEVFN(k + 1, 0);

    fake_settle();
    vm_lock(&b->m->vm);
    dev->ops->reset(dev);
    vm_unlock(&b->m->vm);
    fake_settle();
    for (unsigned i = 4; i < 10; i++)
        vd_config_write(b, devfn, 4 * i, 4, each[k].config[i]);
    vd_config_write(b, devfn, 4, 4, each[k].config[1]);
    if (vd_status(&each[k].d))
        abort(); /* something was not given back */
}

static void save(unsigned k, unsigned mode)
{
    struct device *dev = each[k].dev;
    struct vdriver *d = &each[k].d;
    const char *why = NULL;
    struct stream out;

    vd_negotiate(d, vd_mode(mode), kind[k].features);
    for (unsigned q = 0; q < d->nqueues; q++) {
        vd_setup_queue(d, q, SIZE);
        each[k].state[mode].notify[q] = d->q[q].notify_at;
    }
    fill_queues(k, d);
    if (kind[k].create != create_fs)
        vd_driver_ok(d);
    if (dev->ops->drain)
        dev->ops->drain(dev);
    stream_init(&out, each[k].state[mode].bytes, STATE_MAX);
    vm_lock(&b->m->vm);
    if (dev->ops->save(dev, &out, &why) || out.error)
        abort();
    vm_unlock(&b->m->vm);
    each[k].state[mode].len = out.pos;
    reset(k);
}

static void create(void)
{
    b = vd_board_new();
    b->any_msi = true;
    fake_thread = no_thread;
    bufs = vd_alloc(b, 0x4000, 4096);
    for (unsigned k = 0; k < KINDS; k++)
        each[k].dev = kind[k].create(PCI_DEVFN(k + 1, 0));
    for (unsigned k = 0; k < KINDS; k++) {
        vd_attach(&each[k].d, b, PCI_DEVFN(k + 1, 0));
        for (unsigned i = 0; i < 16; i++)
            each[k].config[i] = vd_config(b, PCI_DEVFN(k + 1, 0), 4 * i, 4);
        for (unsigned mode = 0; mode < MODES; mode++)
            save(k, mode);
    }
    memcpy(ram, b->m->ram, FAKE_RAM_SIZE);
}

/* --- an input ------------------------------------------------------------------------------------
 */

static void backend_event(u32 what)
{
    static u8 text[64];
    struct chardev *c = &chr[what & 1];

    if (what & 128) {
        if (what & 1)
            net.on_readable(net.dev, what >> 1 & 1);
        else
            net.on_writable(net.dev, what >> 1 & 1);
        return;
    }
    vm_lock(&b->m->vm);
    if (what & 2)
        c->on_input(c->dev, text, sizeof(text));
    else if (what & 4)
        c->on_writable(c->dev);
    else
        c->on_open(c->dev, !(c->closed = !c->closed));
    vm_unlock(&b->m->vm);
}

static void one(unsigned k, unsigned mode)
{
    struct vdriver *d = &each[k].d;
    u32 what = take(1), arg = take(1);

    switch (what % 6) {
    case 0:
        vm_mmio_write(&b->m->vm, each[k].state[mode].notify[arg % d->nqueues], 2, 0);
        break;
    case 1:
        backend_event(arg);
        break;
    case 2: /* a byte of the rings or of what is in them */
        *vd_ram(b, bufs + (take(2) % (b->next_alloc - bufs))) = (u8)arg;
        break;
    case 3:
        vd_put(d, VD_STATUS, 1, arg);
        break;
    case 4:
        fake_advance(arg * 100000000ull);
        break;
    default:
        fake_settle();
        break;
    }
}

/* Some bytes of the saved state are others, or all of them. */
static size_t make_state(unsigned k, unsigned mode, u8 *bytes)
{
    size_t len = each[k].state[mode].len;
    u32 changes = take(1);

    memcpy(bytes, each[k].state[mode].bytes, len);
    if (changes == 255) {
        len = take(2) % STATE_MAX;
        for (size_t i = 0; i < len; i++)
            bytes[i] = (u8)take(1);
        return len;
    }
    for (changes %= 16; changes; changes--) {
        u32 off = take(2);

        /* From the end: behind the function's configuration are the queues. */
        bytes[off & 0x8000 ? len - 1 - (off & 0x7fff) % len : off % len] = (u8)take(1);
    }
    return len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static u8 bytes[STATE_MAX];
    struct stream in;
    unsigned k, mode;
    struct device *dev;

    at = data;
    end = data + size;
    if (!b)
        create();
    memcpy(b->m->ram, ram, FAKE_RAM_SIZE);
    k = take(1) % KINDS;
    mode = take(1) % MODES;
    dev = each[k].dev;
    chr[0].closed = chr[1].closed = false;
    calls = 0;
    stream_init(&in, bytes, make_state(k, mode, bytes));
    vm_lock(&b->m->vm);
    if (!dev->ops->load(dev, &in) && dev->ops->loaded)
        dev->ops->loaded(dev);
    vm_unlock(&b->m->vm);
    fake_settle();
    /* Wherever the registers are now, the driver wants them where they were. */
    for (unsigned i = 4; i < 10; i++)
        vd_config_write(b, PCI_DEVFN(k + 1, 0), 4 * i, 4, each[k].config[i]);
    vd_config_write(b, PCI_DEVFN(k + 1, 0), 4, 4, each[k].config[1]);
    while (at < end)
        one(k, mode);
    reset(k);
    return 0;
}
