/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Output is taken on the vCPU's thread that notifies, for Linux' console waits for it with a lock
 * held; more than a notification's worth is left to the event loop. Output the backend has no room
 * for stays in the queue until it has. Input goes into the guest's buffers as it comes, and is left
 * with the backend while there are none.
 */
#include "dev/virtio/console.h"

#include <errno.h>
#include <string.h>

#include "dev/virtio/pci.h"

#define CLASS_COMMUNICATION 0x078000
#define STATE_VERSION 1

#define DATA_QUEUE_SIZE 64
#define CONTROL_QUEUE_SIZE 32

/* Features (5.3.3) */
#define CONSOLE_F_SIZE BIT64(0)
#define CONSOLE_F_MULTIPORT BIT64(1)
#define CONSOLE_F_EMERG_WRITE BIT64(2)

/* Queues (5.3.2): port 0's come first, then the control queues. */
#define CONTROL_RX 2
#define CONTROL_TX 3

/* Configuration (5.3.4) */
struct console_config {
    u16 cols, rows;
    u32 max_nr_ports;
    u32 emerg_wr;
};
_Static_assert(sizeof(struct console_config) == 12, "5.3.4");

/* Control messages (5.3.6.2) */
struct control {
    u32 id;
    u16 event, value;
};
_Static_assert(sizeof(struct control) == 8, "5.3.6.2");

enum {
    DEVICE_READY = 0,
    DEVICE_ADD = 1,
    DEVICE_REMOVE = 2,
    PORT_READY = 3,
    CONSOLE_PORT = 4,
    RESIZE = 5,
    PORT_OPEN = 6,
    PORT_NAME = 7,
    EVENTS,
};

/* Bytes of output taken in one go, and messages. */
#define OUTPUT_TURN 65536u
#define CONTROL_TURN 64u
/* A console's reader who stands still this long loses output: the guest's kernel waits for its
 * console with interrupts off. */
#define STALL_NS 2000000000ull

struct port {
    struct console *console;
    struct chardev *chr; /* NULL: there is no such port */
    const char *name;    /* NULL: a console */
    unsigned id;
    bool guest_open;
    bool starved;    /* input waits for buffers */
    bool stalled;    /* output waits for the backend */
    bool discarding; /* it did so for too long */
    u32 due;         /* control messages to send: bits of events */
    u64 taken;       /* bytes of the queue's first chain the backend has already */
    struct vtimer patience;
};

struct console {
    struct device dev;
    struct virtio_device virtio;
    struct virtio_pci pci;
    struct host_bh work;
    struct port port[VIRTIO_CONSOLE_PORTS];
    unsigned nports; /* highest one + 1 */
    bool resized;    /* between load and loaded: the console has another size than before */
    struct host_iov iov[DATA_QUEUE_SIZE];
    struct virtq_chain chain; /* what is being worked on, in iov */
};

static struct console *of(struct virtio_device *d)
{
    return container_of(d, struct console, virtio);
}

static unsigned rx_queue(const struct port *p)
{
    return p->id ? 2 + 2 * p->id : 0;
}

static unsigned tx_queue(const struct port *p)
{
    return rx_queue(p) + 1;
}

/* The port whose queue q is; NULL: the control queues. */
static struct port *port_of(struct console *c, unsigned q)
{
    if (q == CONTROL_RX || q == CONTROL_TX)
        return NULL;
    return &c->port[q < CONTROL_RX ? 0 : q / 2 - 1];
}

static bool multiport(const struct console *c)
{
    return virtio_has(&c->virtio, CONSOLE_F_MULTIPORT);
}

/* --- output --------------------------------------------------------------------------------------
 */

/* The backend takes what it can of the chain, from p->taken on. true: it has all of it. */
static bool write_chain(struct port *p, const struct virtq_chain *c, u32 *budget)
{
    u64 skip = p->taken;

    for (unsigned i = 0; i < c->nout; i++) {
        size_t n = c->iov[i].len, took;

        if (skip >= n) {
            skip -= n;
            continue;
        }
        n -= skip;
        if (n > *budget)
            n = *budget;
        took = n ? p->chr->write(p->chr, (const u8 *)c->iov[i].base + skip, n) : 0;
        *budget -= (u32)took;
        p->taken += took;
        if (took < n)
            p->stalled = true;
        if (took < c->iov[i].len - skip)
            return false;
        skip = 0;
    }
    return true;
}

static bool send_one(struct port *p, u32 *budget)
{
    struct console *c = p->console;
    unsigned q = tx_queue(p);

    if (!virtq_pop(&c->virtio, q, &c->chain))
        return false;
    if (!p->chr || p->chr->closed || p->discarding || write_chain(p, &c->chain, budget)) {
        p->taken = 0;
        virtq_push(&c->virtio, q, &c->chain, 0);
        *budget -= *budget < 64 ? *budget : 64; /* empty ones are work too */
    } else {
        virtq_unpop(&c->virtio, q, &c->chain);
    }
    vtimer_cancel(&p->patience);
    return true;
}

/* Sends what the guest has for us, until the backend is full. */
static void send_output(struct port *p)
{
    struct console *c = p->console;
    u32 budget = OUTPUT_TURN;

    while (!p->stalled && budget && send_one(p, &budget))
        ;
    virtq_signal(&c->virtio, tx_queue(p));
    if (p->stalled && !p->name && !p->patience.armed)
        vtimer_set(&p->patience, vm_clock_ns(c->virtio.vm) + STALL_NS);
    else if (!budget)
        host_bh_schedule(&c->work);
}

/* Timer: the console's reader has stood still for long. */
static void give_up(void *opaque)
{
    struct port *p = opaque;

    if (!p->stalled)
        return;
    p->stalled = false;
    p->discarding = true;
    send_output(p);
}

static void on_writable(void *dev)
{
    struct port *p = dev;

    vtimer_cancel(&p->patience);
    p->stalled = p->discarding = false;
    send_output(p);
}

/* --- input ---------------------------------------------------------------------------------------
 */

static bool takes_input(const struct port *p)
{
    return !p->name || p->guest_open || !multiport(p->console);
}

static size_t on_input(void *dev, const u8 *buf, size_t n)
{
    struct port *p = dev;
    struct console *c = p->console;
    unsigned q = rx_queue(p);
    size_t taken = 0;

    while (taken < n && takes_input(p) && virtq_pop(&c->virtio, q, &c->chain)) {
        size_t k = iov_write(c->chain.iov + c->chain.nout, c->chain.nin, 0, buf + taken, n - taken);

        virtq_push(&c->virtio, q, &c->chain, (u32)k);
        taken += k;
        if (!k)
            break; /* a buffer without room: one a call is enough of them */
    }
    if (taken)
        virtq_signal(&c->virtio, q);
    p->starved = taken < n;
    return taken;
}

/* The guest has buffers again, or opened the port. */
static void ask_for_input(struct port *p)
{
    if (!p->chr || !p->starved || !takes_input(p) || !virtq_ready(&p->console->virtio, rx_queue(p)))
        return;
    p->starved = false;
    if (p->chr->kick_input)
        p->chr->kick_input(p->chr);
}

/* --- control messages ----------------------------------------------------------------------------
 */

/* The message for event of p, in buf; its length. */
static size_t make_message(const struct port *p, unsigned event, u8 *buf)
{
    struct control m = {.id = p->id, .event = (u16)event, .value = 1};
    size_t n = sizeof(m);

    if (event == PORT_OPEN)
        m.value = !p->chr->closed;
    memcpy(buf, &m, sizeof(m));
    if (event == PORT_NAME) {
        memcpy(buf + n, p->name, strlen(p->name));
        n += strlen(p->name);
    } else if (event == RESIZE) {
        /* The specification has columns first; Linux, which the message was made for, rows. */
        const u16 size[2] = {p->chr->rows, p->chr->cols};

        memcpy(buf + n, size, sizeof(size));
        n += sizeof(size);
    }
    return n;
}

/* Sends one message that is due, if the guest has a buffer for it. */
static bool send_message(struct port *p, unsigned event)
{
    struct console *c = p->console;
    u8 buf[sizeof(struct control) + VIRTIO_CONSOLE_NAME_MAX];
    size_t n = make_message(p, event, buf);

    if (!virtq_pop(&c->virtio, CONTROL_RX, &c->chain))
        return false;
    if (c->chain.in_len < n) {
        virtq_drop(&c->virtio, CONTROL_RX, &c->chain);
        virtio_broken(&c->virtio, "a control buffer is too short for a message");
        return false;
    }
    iov_write(c->chain.iov + c->chain.nout, c->chain.nin, 0, buf, n);
    virtq_push(&c->virtio, CONTROL_RX, &c->chain, (u32)n);
    p->due &= ~BIT32(event);
    return true;
}

/* In the order a driver wants to hear them: what there is, what it is, and its state. */
static void send_messages(struct console *c)
{
    static const u8 order[] = {DEVICE_ADD, CONSOLE_PORT, PORT_NAME, RESIZE, PORT_OPEN};
    bool room = multiport(c);

    for (unsigned i = 0; i < c->nports && room; i++)
        for (unsigned k = 0; k < ARRAY_SIZE(order) && room; k++)
            if (c->port[i].due & BIT32(order[k]))
                room = send_message(&c->port[i], order[k]);
    virtq_signal(&c->virtio, CONTROL_RX);
}

static void port_is_ready(struct port *p)
{
    if (p->name)
        p->due |= BIT32(PORT_NAME);
    else
        p->due |= BIT32(CONSOLE_PORT) | (p->chr->cols ? BIT32(RESIZE) : 0);
    p->due |= BIT32(PORT_OPEN);
}

static void handle_message(struct console *c, const struct control *m)
{
    struct port *p;

    if (m->event == DEVICE_READY) {
        for (unsigned i = 0; i < c->nports && m->value == 1; i++)
            if (c->port[i].chr)
                c->port[i].due |= BIT32(DEVICE_ADD);
        return;
    }
    p = m->id < c->nports ? &c->port[m->id] : NULL;
    if (!p || !p->chr)
        return;
    if (m->event == PORT_READY && m->value == 1) {
        port_is_ready(p);
    } else if (m->event == PORT_OPEN) {
        p->guest_open = m->value != 0;
        ask_for_input(p);
    }
}

static void receive_messages(struct console *c)
{
    unsigned left = CONTROL_TURN;

    while (left && virtq_pop(&c->virtio, CONTROL_TX, &c->chain)) {
        struct control m;
        size_t n = iov_read(c->chain.iov, c->chain.nout, 0, &m, sizeof(m));

        virtq_push(&c->virtio, CONTROL_TX, &c->chain, 0);
        if (n == sizeof(m))
            handle_message(c, &m);
        left--;
    }
    virtq_signal(&c->virtio, CONTROL_TX);
    send_messages(c);
    if (!left)
        host_bh_schedule(&c->work);
}

static void on_resize(void *dev, u16 cols, u16 rows)
{
    struct port *p = dev;
    struct console *c = p->console;

    (void)cols; /* chr has them */
    (void)rows;
    if (!multiport(c)) {
        virtio_config_changed(&c->virtio);
        return;
    }
    p->due |= BIT32(RESIZE);
    send_messages(c);
}

static void on_open(void *dev, bool open)
{
    struct port *p = dev;

    p->due |= BIT32(PORT_OPEN);
    send_messages(p->console);
    if (!open && p->stalled)
        on_writable(p); /* nobody will take it: it goes */
}

/* --- the device ----------------------------------------------------------------------------------
 */

/* Event loop: what was too much for a notification. */
static void work(void *opaque)
{
    struct console *c = opaque;

    vm_lock(c->virtio.vm);
    for (unsigned i = 0; i < c->nports; i++)
        send_output(&c->port[i]);
    if (multiport(c))
        receive_messages(c);
    vm_unlock(c->virtio.vm);
}

/* Linux looks at the size only when it is told that it changed. */
static void start(struct virtio_device *d)
{
    struct console *c = of(d);

    if (!multiport(c) && c->port[0].chr && c->port[0].chr->cols)
        virtio_config_changed(d);
}

static void notify(struct virtio_device *d, unsigned q)
{
    struct console *c = of(d);
    struct port *p = port_of(c, q);

    if (q == CONTROL_TX && multiport(c))
        receive_messages(c);
    else if (q == CONTROL_RX)
        send_messages(c);
    else if (p && q == rx_queue(p))
        ask_for_input(p);
    else if (p)
        send_output(p);
}

static u32 config_read(struct virtio_device *d, unsigned off, unsigned size)
{
    const struct console *c = of(d);
    const struct chardev *chr = c->port[0].chr;
    struct console_config config = {.max_nr_ports = c->nports};
    u32 val = 0;

    if (chr) {
        config.cols = chr->cols;
        config.rows = chr->rows;
    }
    memcpy(&val, (const u8 *)&config + off, size);
    return val;
}

/* Emergency write (5.3.4): a character, whatever the state of the device. */
static void config_write(struct virtio_device *d, unsigned off, unsigned size, u32 val)
{
    struct chardev *chr = of(d)->port[0].chr;
    u8 byte = (u8)val;

    (void)size;
    if (chr && off == offsetof(struct console_config, emerg_wr))
        chr->write(chr, &byte, 1);
}

static void reset_virtio(struct virtio_device *d)
{
    struct console *c = of(d);

    for (unsigned i = 0; i < c->nports; i++) {
        struct port *p = &c->port[i];

        p->guest_open = p->stalled = p->discarding = false;
        p->due = 0;
        p->taken = 0;
        vtimer_cancel(&p->patience);
    }
}

static const struct virtio_ops virtio_console_ops = {.config_read = config_read,
                                                     .config_write = config_write,
                                                     .start = start,
                                                     .notify = notify,
                                                     .reset = reset_virtio};

/* --- saving and loading --------------------------------------------------------------------------
 */

/*
 * Nothing is in flight between two turns of the event loop. That a backend was full, or had input
 * the guest had no room for, is not part of it: whoever goes on has other backends.
 */
static int save(const struct device *dev, struct stream *out, const char **why)
{
    const struct console *c = container_of(dev, struct console, dev);

    stream_put_u16(out, STATE_VERSION);
    stream_put_u8(out, (u8)c->nports);
    for (unsigned i = 0; i < c->nports; i++) {
        const struct port *p = &c->port[i];

        stream_put_u8(out, p->chr != NULL);
        stream_put_u8(out, p->guest_open);
        stream_put_u32(out, p->due);
        stream_put_u64(out, p->taken);
        stream_put_u8(out, p->chr && p->chr->closed);
        stream_put_u16(out, p->chr ? p->chr->cols : 0);
        stream_put_u16(out, p->chr ? p->chr->rows : 0);
    }
    return virtio_pci_save(&c->pci, out, why);
}

/* Messages there can be for a port. */
static u32 messages(const struct port *p)
{
    if (!p->chr)
        return 0;
    return BIT32(DEVICE_ADD) | BIT32(PORT_OPEN) |
           (p->name ? BIT32(PORT_NAME) : BIT32(CONSOLE_PORT) | BIT32(RESIZE));
}

static bool load_port(struct port *p, struct stream *in)
{
    bool present = p->chr != NULL;
    u8 guest_open, closed;
    u16 cols, rows;

    if (stream_get_u8(in) != present)
        return false;
    guest_open = stream_get_u8(in);
    p->due = stream_get_u32(in);
    p->taken = stream_get_u64(in);
    closed = stream_get_u8(in);
    cols = stream_get_u16(in);
    rows = stream_get_u16(in);
    if (in->error || guest_open > 1 || closed > 1 || (p->due & ~messages(p)) ||
        p->taken > UINT32_MAX)
        return false;
    p->guest_open = guest_open;
    if (!present)
        return true;
    /* What the guest knows and is different now */
    if (closed != p->chr->closed)
        p->due |= BIT32(PORT_OPEN);
    if (!p->name && (cols != p->chr->cols || rows != p->chr->rows)) {
        p->due |= BIT32(RESIZE);
        p->console->resized = true;
    }
    return true;
}

static int load(struct device *dev, struct stream *in)
{
    struct console *c = container_of(dev, struct console, dev);

    if (stream_get_u16(in) != STATE_VERSION || stream_get_u8(in) != c->nports)
        return -EINVAL;
    c->resized = false;
    for (unsigned i = 0; i < c->nports; i++)
        if (!load_port(&c->port[i], in)) {
            reset_virtio(&c->virtio);
            return -EINVAL;
        }
    return virtio_pci_load(&c->pci, in);
}

static void loaded(struct device *dev)
{
    struct console *c = container_of(dev, struct console, dev);

    if (c->resized && !multiport(c))
        virtio_config_changed(&c->virtio);
    for (unsigned i = 0; i < c->nports; i++)
        ask_for_input(&c->port[i]);
    host_bh_schedule(&c->work);
}

static void reset(struct device *d)
{
    virtio_pci_reset(&container_of(d, struct console, dev)->pci);
}

static void destroy(struct device *d)
{
    struct console *c = container_of(d, struct console, dev);

    host_bh_cancel(&c->work);
    for (unsigned i = 0; i < c->nports; i++) {
        struct chardev *chr = c->port[i].chr;

        vtimer_cancel(&c->port[i].patience);
        if (!chr)
            continue;
        chr->on_input = NULL;
        chr->on_resize = NULL;
        chr->on_writable = NULL;
        chr->on_open = NULL;
    }
    host_free(c);
}

static const struct device_ops ops = {.name = "virtio-console",
                                      .reset = reset,
                                      .save = save,
                                      .load = load,
                                      .loaded = loaded,
                                      .destroy = destroy};

static void init_port(struct console *c, unsigned id, const char *name, struct chardev *chr)
{
    struct port *p = &c->port[id];

    p->console = c;
    p->id = id;
    p->name = name;
    p->chr = chr;
    vtimer_init(&p->patience, c->virtio.vm, give_up, p);
    if (!chr)
        return;
    chr->dev = p;
    chr->on_input = on_input;
    chr->on_resize = name ? NULL : on_resize;
    chr->on_writable = on_writable;
    chr->on_open = on_open;
}

struct device *virtio_console_create(struct vm *vm, struct device *pci_host, u8 devfn,
                                     const struct virtio_console_config *cfg)
{
    struct console *c = host_zalloc(sizeof(*c));
    struct virtio_device *d;

    if (!c)
        return NULL;
    d = &c->virtio;
    c->dev.ops = &ops;
    c->nports = 1 + cfg->nports;
    c->chain = (struct virtq_chain){.iov = c->iov, .cap = ARRAY_SIZE(c->iov)};
    host_bh_init(&c->work, work, c);
    virtio_init(d, vm, &virtio_console_ops, VIRTIO_ID_CONSOLE, cfg->name,
                sizeof(struct console_config));
    d->offered |= cfg->console ? CONSOLE_F_SIZE | CONSOLE_F_EMERG_WRITE : 0;
    /* A console alone does without control messages: kernels disagree about the order of columns
     * and rows in one of them, not about the configuration. */
    d->offered |= cfg->nports ? CONSOLE_F_MULTIPORT : 0;
    for (unsigned i = 0; i < (cfg->nports ? c->nports + 1 : 1); i++) {
        u16 size = i == 1 ? CONTROL_QUEUE_SIZE : DATA_QUEUE_SIZE;

        virtio_add_queue(d, size);
        virtio_add_queue(d, size);
    }
    if (virtio_pci_init(&c->pci, d, pci_host, devfn, CLASS_COMMUNICATION)) {
        host_free(c);
        return NULL;
    }
    init_port(c, 0, NULL, cfg->console);
    for (unsigned i = 0; i < cfg->nports; i++)
        init_port(c, i + 1, cfg->port[i].name, cfg->port[i].chr);
    vm_add_device(vm, &c->dev);
    return &c->dev;
}
