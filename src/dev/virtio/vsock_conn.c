/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections (virtio 1.2 5.10.6). What the guest sends goes to the host's program at once; what
 * that one does not take waits in a ring, no larger than the credit the guest has. What the program
 * sends is read when the guest has a buffer and credit for it, straight into the buffer.
 */
#include "dev/virtio/vsock_priv.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"

#define DUE(op) BIT32(VSOCK_OP_##op)

/* Ports of the host's that nobody chose; those below are for names (path_PORT). */
#define PORT_FIRST 0x40000000u

/* Pieces of a packet's payload. */
#define PIECES_MAX 256

static void on_event(void *opaque, unsigned events);

/* --- the list of those that may have a packet for the guest --------------------------------------
 */

static void make_ready(struct vsock_conn *c)
{
    if (!c->ready) {
        c->ready = true;
        c->next_ready = NULL;
        *c->v->last_ready = c;
        c->v->last_ready = &c->next_ready;
    }
    vsock_wake(c->v);
}

static struct vsock_conn *take_ready(struct vsock *v)
{
    struct vsock_conn *c = v->ready;

    v->ready = c->next_ready;
    if (!v->ready)
        v->last_ready = &v->ready;
    c->ready = false;
    return c;
}

bool vsock_pending(const struct vsock *v)
{
    return v->nreplies || v->ready;
}

static void send_soon(struct vsock_conn *c, u32 due)
{
    c->due |= due;
    make_ready(c);
}

/* --- coming and going ----------------------------------------------------------------------------
 */

static struct vsock_conn *find(struct vsock *v, u32 guest_port, u32 host_port)
{
    for (unsigned i = 0; i < VSOCK_CONNS_MAX; i++) {
        struct vsock_conn *c = &v->conn[i];

        if (c->state != VSOCK_FREE && c->state != VSOCK_LEAVING && c->guest_port == guest_port &&
            c->host_port == host_port)
            return c;
    }
    return NULL;
}

static struct vsock_conn *add(struct vsock *v, u32 guest_port, u32 host_port)
{
    for (unsigned i = 0; i < VSOCK_CONNS_MAX; i++) {
        struct vsock_conn *c = &v->conn[i];

        /* One that is still in the list was just freed. */
        if (c->state != VSOCK_FREE || c->ready)
            continue;
        *c = (struct vsock_conn){.v = v, .guest_port = guest_port, .host_port = host_port};
        return c;
    }
    return NULL;
}

static void attach(struct vsock_conn *c, struct sockstream *s)
{
    c->s = s;
    s->on_event = on_event;
    s->opaque = c;
}

/* The host's end is closed; what it has not taken is lost. */
static void close_stream(struct vsock_conn *c)
{
    if (c->s)
        c->v->sock->ops->close_stream(c->s);
    c->s = NULL;
    if (c->ring)
        host_free(c->ring);
    c->ring = NULL;
    c->fill = 0;
}

static void release(struct vsock_conn *c)
{
    close_stream(c);
    c->due = 0;
    c->state = VSOCK_FREE;
}

/* Ends a connection from this side. */
static void reset_conn(struct vsock_conn *c)
{
    close_stream(c);
    c->state = VSOCK_RESETTING;
    c->due = 0;
    send_soon(c, DUE(RST));
}

void vsock_close_all(struct vsock *v)
{
    for (unsigned i = 0; i < VSOCK_CONNS_MAX; i++) {
        release(&v->conn[i]);
        v->conn[i].ready = false;
    }
    v->ready = NULL;
    v->last_ready = &v->ready;
    v->nreplies = 0;
}

/* --- to the host's program -----------------------------------------------------------------------
 */

static const struct sockdev_ops *ops_of(const struct vsock_conn *c)
{
    return c->v->sock->ops;
}

static bool wants_data(const struct vsock_conn *c)
{
    return c->state == VSOCK_OPEN && c->s && !(c->host_shutdown & VSOCK_NO_SEND) &&
           !(c->guest_shutdown & VSOCK_NO_RECEIVE);
}

static void watch(struct vsock_conn *c)
{
    bool early = c->state == VSOCK_REQUESTED;

    if (c->s && c->state != VSOCK_CONNECTING)
        ops_of(c)->watch(c->s, !c->readable && (early || wants_data(c)), c->fill > 0);
}

/* What is said once everything the guest sent has gone where it should. */
static void when_empty(struct vsock_conn *c)
{
    if (c->fill)
        return;
    if (c->state == VSOCK_LEAVING)
        release(c);
    else if ((c->guest_shutdown & VSOCK_BOTH) == VSOCK_BOTH)
        reset_conn(c); /* a clean disconnect ends so (5.10.6.6.2) */
    else if ((c->guest_shutdown & VSOCK_NO_SEND) && c->s && !c->told_end) {
        c->told_end = true;
        ops_of(c)->shutdown(c->s, false, true);
    }
}

/* Nobody reads on the host: what comes from the guest is lost from here on. */
static void lose_reader(struct vsock_conn *c)
{
    c->fill = 0;
    if (c->state != VSOCK_OPEN || (c->host_shutdown & VSOCK_NO_RECEIVE))
        return;
    c->host_shutdown |= VSOCK_NO_RECEIVE;
    send_soon(c, DUE(SHUTDOWN));
}

/* Of bytes the guest was not yet told that they are gone. */
static bool credit_is_news(const struct vsock_conn *c)
{
    return c->received - c->fill - c->told >= VSOCK_BUFFER / 2;
}

/* The ring's contents: one piece or two. */
static unsigned ring_pieces(const struct vsock_conn *c, u32 at, u32 len, struct host_iov iov[2])
{
    u32 first = VSOCK_BUFFER - at % VSOCK_BUFFER;

    if (first > len)
        first = len;
    iov[0] = (struct host_iov){c->ring + at % VSOCK_BUFFER, first};
    iov[1] = (struct host_iov){c->ring, len - first};
    return first < len ? 2 : 1;
}

static void flush(struct vsock_conn *c)
{
    while (c->fill) {
        struct host_iov iov[2];
        unsigned n = ring_pieces(c, c->head, c->fill, iov);
        s64 r = ops_of(c)->send(c->s, iov, n);

        if (r == -EAGAIN)
            break;
        if (r <= 0) {
            lose_reader(c);
            break;
        }
        c->head = (c->head + (u32)r) % VSOCK_BUFFER;
        c->fill -= (u32)r;
    }
    if (c->state == VSOCK_OPEN && credit_is_news(c))
        send_soon(c, DUE(CREDIT_UPDATE));
    when_empty(c);
    watch(c);
}

/* The pieces from off on, len bytes, behind what is in the ring. false: no memory. */
static bool keep(struct vsock_conn *c, const struct host_iov *iov, unsigned n, size_t off, u32 len)
{
    struct host_iov to[2];

    if (!c->ring)
        c->ring = host_zalloc(VSOCK_BUFFER);
    if (!c->ring)
        return false;
    if (ring_pieces(c, c->head + c->fill, len, to) == 2)
        iov_read(iov, n, off + to[0].len, to[1].base, to[1].len);
    iov_read(iov, n, off, to[0].base, to[0].len);
    c->fill += len;
    return true;
}

static void take_data(struct vsock_conn *c, u32 len, const struct host_iov *iov, unsigned n,
                      size_t off)
{
    struct host_iov piece[PIECES_MAX];
    int pieces = iov_slice(iov, n, off, len, piece, PIECES_MAX);
    s64 done = 0;

    /* Beyond its credit, or after it said there would be no more. */
    if (len > VSOCK_BUFFER - c->fill || (c->guest_shutdown & VSOCK_NO_SEND) || pieces < 0) {
        reset_conn(c);
        return;
    }
    c->received += len;
    if (!len || !c->s || (c->host_shutdown & VSOCK_NO_RECEIVE))
        done = len;
    else if (!c->fill)
        done = ops_of(c)->send(c->s, piece, (unsigned)pieces);
    if (done < 0 && done != -EAGAIN) {
        lose_reader(c);
        done = len;
    }
    if (done < 0)
        done = 0;
    if (done < (s64)len && !keep(c, iov, n, off + (size_t)done, len - (u32)done)) {
        reset_conn(c);
        return;
    }
    if (credit_is_news(c))
        send_soon(c, DUE(CREDIT_UPDATE));
    watch(c);
}

/* Bytes the guest has room for. What it says may be nonsense. */
static u32 credit(const struct vsock_conn *c)
{
    u32 under_way = c->sent - c->fwd_cnt;

    return under_way < c->buf_alloc ? c->buf_alloc - under_way : 0;
}

/* --- packets of the guest's ----------------------------------------------------------------------
 */

static void reply_rst(struct vsock *v, const struct vsock_header *h)
{
    if (h->op != VSOCK_OP_RST)
        v->reply[v->nreplies++] = (struct vsock_reply){
            .cid = h->dst_cid, .guest_port = h->src_port, .host_port = h->dst_port};
}

static void learn_credit(struct vsock_conn *c, const struct vsock_header *h)
{
    c->buf_alloc = h->buf_alloc;
    c->fwd_cnt = h->fwd_cnt;
    if (credit(c))
        c->credit_asked = false;
    if (c->readable)
        make_ready(c);
}

static void on_guest_request(struct vsock *v, const struct vsock_header *h)
{
    struct vsock_conn *c = add(v, h->src_port, h->dst_port);
    struct sockstream *s = c ? v->sock->ops->connect(v->sock, h->dst_port) : NULL;

    if (!s) {
        reply_rst(v, h);
        return;
    }
    c->state = VSOCK_CONNECTING;
    attach(c, s);
    learn_credit(c, h);
}

static void on_response(struct vsock_conn *c)
{
    if (c->state != VSOCK_REQUESTED) {
        reset_conn(c);
        return;
    }
    c->state = VSOCK_OPEN;
    ops_of(c)->accepted(c->s, c->host_port);
    if (c->readable)
        make_ready(c);
    watch(c);
}

static void on_shutdown(struct vsock_conn *c, u32 flags)
{
    u8 before = c->guest_shutdown;

    c->guest_shutdown |= (u8)(flags & VSOCK_BOTH);
    if ((c->guest_shutdown & ~before & VSOCK_NO_RECEIVE) && c->s)
        ops_of(c)->shutdown(c->s, true, false);
    watch(c);
    when_empty(c);
}

/* What a guest sent before it said that there is no more is not lost because it waits no longer for
 * the end (Linux: 8 seconds). */
static void on_rst(struct vsock_conn *c)
{
    if (c->fill && (c->guest_shutdown & VSOCK_NO_SEND)) {
        c->state = VSOCK_LEAVING;
        c->due = 0;
        watch(c);
    } else {
        release(c);
    }
}

static void on_packet(struct vsock_conn *c, const struct vsock_header *h,
                      const struct host_iov *iov, unsigned n, size_t off)
{
    if (h->op == VSOCK_OP_RST) {
        on_rst(c);
        return;
    }
    if (c->state == VSOCK_RESETTING)
        return; /* it will hear of it */
    learn_credit(c, h);
    if (h->op == VSOCK_OP_RESPONSE) {
        on_response(c);
        return;
    }
    if (c->state != VSOCK_OPEN) {
        /* The guest may give up before it is answered, and nothing else. */
        reset_conn(c);
        return;
    }
    switch (h->op) {
    case VSOCK_OP_SHUTDOWN:
        on_shutdown(c, h->flags);
        break;
    case VSOCK_OP_RW:
        take_data(c, h->len, iov, n, off);
        break;
    case VSOCK_OP_CREDIT_UPDATE:
        break;
    case VSOCK_OP_CREDIT_REQUEST:
        send_soon(c, DUE(CREDIT_UPDATE));
        break;
    default: /* also a second REQUEST */
        reset_conn(c);
        break;
    }
}

void vsock_packet(struct vsock *v, const struct vsock_header *h, const struct host_iov *iov,
                  unsigned n, size_t off)
{
    struct vsock_conn *c;

    if (h->src_cid != v->sock->cid)
        return; /* nobody to answer */
    if (h->dst_cid != VSOCK_CID_HOST || h->type != VSOCK_TYPE_STREAM) {
        reply_rst(v, h);
        return;
    }
    c = find(v, h->src_port, h->dst_port);
    if (c)
        on_packet(c, h, iov, n, off);
    else if (h->op == VSOCK_OP_REQUEST)
        on_guest_request(v, h);
    else
        reply_rst(v, h);
}

/* --- the host's program --------------------------------------------------------------------------
 */

bool vsock_request(struct vsock *v, struct sockstream *s, u32 port)
{
    struct vsock_conn *c;

    do {
        v->next_port = v->next_port < PORT_FIRST ? PORT_FIRST : v->next_port + 1;
        if (v->next_port == UINT32_MAX) /* means any (VMADDR_PORT_ANY) */
            v->next_port = PORT_FIRST;
    } while (find(v, port, v->next_port));
    c = add(v, port, v->next_port);
    if (!c)
        return false;
    c->state = VSOCK_REQUESTED;
    attach(c, s);
    watch(c);
    send_soon(c, DUE(REQUEST));
    return true;
}

static void on_event(void *opaque, unsigned events)
{
    struct vsock_conn *c = opaque;

    if (events & SOCKSTREAM_REFUSED) {
        reset_conn(c);
        return;
    }
    if (events & SOCKSTREAM_CONNECTED) {
        c->state = VSOCK_OPEN;
        send_soon(c, DUE(RESPONSE));
    }
    if (events & SOCKSTREAM_READABLE) {
        c->readable = true;
        make_ready(c);
    }
    if (events & SOCKSTREAM_WRITABLE)
        flush(c); /* may free it */
    else
        watch(c);
}

/* --- packets for the guest -----------------------------------------------------------------------
 */

static void fill_header(const struct vsock_conn *c, struct vsock_header *h, u16 op)
{
    *h = (struct vsock_header){.src_cid = VSOCK_CID_HOST,
                               .dst_cid = c->v->sock->cid,
                               .src_port = c->host_port,
                               .dst_port = c->guest_port,
                               .type = VSOCK_TYPE_STREAM,
                               .op = op,
                               .buf_alloc = VSOCK_BUFFER,
                               .fwd_cnt = c->received - c->fill};
    if (op == VSOCK_OP_SHUTDOWN)
        h->flags = c->host_shutdown;
}

/* Reads from the program. 0: nothing, and *op is what is to be said instead, if anything. */
static u32 read_data(struct vsock_conn *c, const struct host_iov *iov, unsigned n, size_t off,
                     size_t room, u16 *op)
{
    struct host_iov piece[PIECES_MAX];
    u32 max = credit(c);
    int pieces;
    s64 r;

    if (!max) {
        *op = c->credit_asked ? 0 : VSOCK_OP_CREDIT_REQUEST;
        c->credit_asked = true;
        return 0;
    }
    if (max > room)
        max = (u32)room;
    pieces = iov_slice(iov, n, off, max, piece, PIECES_MAX);
    *op = VSOCK_OP_RW;
    if (pieces <= 0) { /* a buffer for a header alone: something else may fit */
        *op = 0;
        return 0;
    }
    r = ops_of(c)->receive(c->s, piece, (unsigned)pieces);
    if (r > 0) {
        c->sent += (u32)r;
        return (u32)r;
    }
    c->readable = false;
    *op = 0;
    if (r == -EAGAIN) {
        watch(c);
        return 0;
    }
    c->host_shutdown |= VSOCK_NO_SEND;
    if (r < 0 || ops_of(c)->hung_up(c->s)) {
        c->host_shutdown |= VSOCK_NO_RECEIVE;
        c->fill = 0;
    }
    c->due &= ~DUE(SHUTDOWN);
    *op = VSOCK_OP_SHUTDOWN;
    watch(c);
    return 0;
}

/* The next packet of a connection's. Its operation; 0: none. */
static u16 next_of(struct vsock_conn *c, u32 *len, const struct host_iov *iov, unsigned n,
                   size_t off, size_t room)
{
    static const u8 order[] = {VSOCK_OP_RST,      VSOCK_OP_REQUEST,       VSOCK_OP_RESPONSE,
                               VSOCK_OP_SHUTDOWN, VSOCK_OP_CREDIT_UPDATE, VSOCK_OP_CREDIT_REQUEST};
    u16 op = 0;

    *len = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
        if (c->due & BIT32(order[i])) {
            c->due &= ~BIT32(order[i]);
            return order[i];
        }
    if (c->readable && wants_data(c))
        *len = read_data(c, iov, n, off, room, &op);
    return op;
}

static bool has_more(const struct vsock_conn *c)
{
    return c->due || (c->readable && wants_data(c) && (credit(c) || !c->credit_asked));
}

bool vsock_next(struct vsock *v, struct vsock_header *h, const struct host_iov *iov, unsigned n,
                size_t off, size_t room)
{
    if (v->nreplies) {
        const struct vsock_reply *r = &v->reply[--v->nreplies];

        *h = (struct vsock_header){.src_cid = r->cid,
                                   .dst_cid = v->sock->cid,
                                   .src_port = r->host_port,
                                   .dst_port = r->guest_port,
                                   .type = VSOCK_TYPE_STREAM,
                                   .op = VSOCK_OP_RST};
        return true;
    }
    while (v->ready) {
        struct vsock_conn *c = take_ready(v);
        u32 len;
        u16 op = next_of(c, &len, iov, n, off, room);

        if (!op)
            continue;
        fill_header(c, h, op);
        h->len = len;
        c->told = h->fwd_cnt;
        /* It says what an update would. */
        c->due &= ~DUE(CREDIT_UPDATE);
        if (op == VSOCK_OP_RST)
            release(c);
        else if (has_more(c))
            make_ready(c);
        return true;
    }
    return false;
}
