/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/net/helper.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <slirp/libslirp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "backend/library.h"
#include "backend/net/frame.h"
#include "base/log.h"
#include "core/backend.h"

/* What the stack is told a link takes: the most it accepts, so that big segments pass in one. */
#define STACK_MTU 65521
/* To the stack: the guest takes segments of any size. It sends at most half of that. */
#define MSS_ANY (STACK_MTU - 60)
#define MTU_DEFAULT 1500

/* Frames from the guest before the sockets get their turn again. */
#define BATCH 64
/* Frames the VM's end of the socket has no room for: beyond the first limit nothing is read from
 * the network, beyond the second (the stack's own frames) they are lost. */
#define HELD_STOP (256u << 10)
#define HELD_MAX (2u << 20)

#define TIMERS 4

#define SONAME "libslirp.so.0"
#define FUNCTIONS(X)                                                                               \
    X(slirp_add_hostfwd)                                                                           \
    X(slirp_input)                                                                                 \
    X(slirp_new)                                                                                   \
    X(slirp_pollfds_fill)                                                                          \
    X(slirp_pollfds_poll)

static struct {
#define X(fn) __typeof__(fn) *fn;
    FUNCTIONS(X)
#undef X
} lib;

static const struct library_function functions[] = {
#define X(fn) LIBRARY_FUNCTION(lib, fn),
    FUNCTIONS(X)
#undef X
};

struct held {
    struct held *next;
    size_t len;
    u8 data[];
};

struct timer {
    bool used;
    s64 at_ms; /* 0: not armed */
    SlirpTimerCb fn;
    void *opaque;
};

struct helper {
    Slirp *slirp;
    int fd;
    bool ended;
    u32 offloads; /* NETDEV_*: what the guest takes */
    u32 mtu;
    struct pollfd *fds; /* the VM's socket, then the stack's */
    unsigned nfds, cap;
    struct held *first, **last;
    size_t held;
    struct timer timers[TIMERS];
    struct mss_table mss;
    u8 frame[sizeof(struct net_hdr) + FRAME_MAX];
};

static s64 now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (s64)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* --- to the guest --------------------------------------------------------------------------------
 */

static void hold(struct helper *h, const struct iovec *v, unsigned n)
{
    struct held *f;
    size_t len = 0;

    for (unsigned i = 0; i < n; i++)
        len += v[i].iov_len;
    f = h->held + len <= HELD_MAX ? malloc(sizeof(*f) + len) : NULL;
    if (!f)
        return; /* lost, as frames may be */
    f->next = NULL;
    f->len = 0;
    for (unsigned i = 0; i < n; i++) {
        memcpy(f->data + f->len, v[i].iov_base, v[i].iov_len);
        f->len += v[i].iov_len;
    }
    *h->last = f;
    h->last = &f->next;
    h->held += len;
}

/* false: no room now. */
static bool send_now(struct helper *h, const struct iovec *v, unsigned n)
{
    struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)v, .msg_iovlen = n};

    if (sendmsg(h->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
        return true;
    if (errno == EPIPE || errno == ECONNRESET)
        h->ended = true;
    return errno != EAGAIN && errno != EWOULDBLOCK;
}

static void to_guest(struct helper *h, const struct iovec *v, unsigned n)
{
    if (h->first || !send_now(h, v, n))
        hold(h, v, n);
}

static void send_held(struct helper *h)
{
    struct held *f;

    while ((f = h->first) != NULL) {
        struct iovec v = {f->data, f->len};

        if (!send_now(h, &v, 1))
            return;
        h->first = f->next;
        if (!h->first)
            h->last = &h->first;
        h->held -= f->len;
        free(f);
    }
}

/* The stack's checksums are right; a guest that knows of such need not look. */
static struct net_hdr plain_header(const struct helper *h)
{
    return (struct net_hdr){.flags = h->offloads & NETDEV_CSUM ? NET_HDR_DATA_VALID : 0};
}

static void emit_piece(void *opaque, const struct frame_piece *p)
{
    struct helper *h = opaque;
    struct net_hdr hdr = plain_header(h);
    struct iovec v[3] = {{&hdr, sizeof(hdr)},
                         {(u8 *)(uintptr_t)p->header, p->header_len},
                         {(u8 *)(uintptr_t)p->payload, p->payload_len}};

    to_guest(h, v, 3);
}

/* In one piece, for the guest to cut. */
static void send_big(struct helper *h, const u8 *p, const struct frame *f, u16 mss)
{
    struct net_hdr hdr;
    u8 head[ETH_HEADER + 60 + 60];
    struct iovec v[3] = {{&hdr, sizeof(hdr)},
                         {head, f->payload},
                         {(u8 *)(uintptr_t)p + f->payload, f->len - f->payload}};
    u16 partial;

    frame_gso(p, f, mss, &hdr, &partial);
    memcpy(head, p, f->payload);
    head[hdr.csum_start + hdr.csum_offset] = (u8)(partial >> 8);
    head[hdr.csum_start + hdr.csum_offset + 1] = (u8)partial;
    to_guest(h, v, 3);
}

static bool takes_big(const struct helper *h, const struct frame *f)
{
    return h->offloads & (f->ip == 4 ? NETDEV_TSO4 : NETDEV_TSO6);
}

/* A frame of the stack's. */
static ssize_t send_packet(const void *buf, size_t len, void *opaque)
{
    struct helper *h = opaque;
    const u8 *p = buf;
    struct net_hdr hdr = plain_header(h);
    struct iovec v[2] = {{&hdr, sizeof(hdr)}, {(u8 *)(uintptr_t)p, len}};
    struct frame f;

    if (frame_parse(p, len, &f)) {
        if (f.protocol == IPPROTO_TCP && f.len - f.payload > MSS_ALWAYS_V4) {
            u16 mss = mss_look_up(&h->mss, p, &f);

            if (f.len - f.payload > mss) {
                if (takes_big(h, &f))
                    send_big(h, p, &f, mss);
                else
                    frame_segment(p, &f, mss, emit_piece, h);
                return (ssize_t)len;
            }
        } else if (f.ip == 4 && f.len - ETH_HEADER > h->mtu &&
                   frame_fragment(p, &f, h->mtu, emit_piece, h)) {
            return (ssize_t)len;
        }
    }
    to_guest(h, v, 2);
    return (ssize_t)len;
}

/* --- from the guest ------------------------------------------------------------------------------
 */

static void input_piece(void *opaque, const struct frame_piece *p)
{
    struct helper *h = opaque;
    u8 frame[STACK_MTU + ETH_HEADER];

    if (p->header_len + p->payload_len > sizeof(frame))
        return;
    memcpy(frame, p->header, p->header_len);
    memcpy(frame + p->header_len, p->payload, p->payload_len);
    lib.slirp_input(h->slirp, frame, (int)(p->header_len + p->payload_len));
}

static void input(struct helper *h, u8 *p, size_t len, const struct net_hdr *hdr)
{
    struct frame f;
    u16 mss;

    if (!frame_from_guest(p, len, hdr, &f))
        return;
    mss = frame_get_mss(p, &f);
    if (mss) {
        mss_note(&h->mss, p, &f, mss);
        if (takes_big(h, &f))
            frame_set_mss(p, &f, MSS_ANY);
    }
    /* Only a segment that counts on being cut can be this long. */
    if (f.len - ETH_HEADER > STACK_MTU) {
        if (hdr->gso_type != NET_GSO_NONE)
            frame_segment(p, &f, STACK_MTU / 2, input_piece, h);
        return;
    }
    lib.slirp_input(h->slirp, p, (int)f.len);
}

/* One message; false: there is none. */
static bool receive(struct helper *h)
{
    ssize_t n = recv(h->fd, h->frame, sizeof(h->frame), MSG_DONTWAIT);
    struct net_control control;
    struct net_hdr hdr;

    if (n == sizeof(control)) {
        memcpy(&control, h->frame, sizeof(control));
        h->offloads = control.offloads;
    } else if (n > (ssize_t)sizeof(hdr)) {
        memcpy(&hdr, h->frame, sizeof(hdr));
        input(h, h->frame + sizeof(hdr), (size_t)n - sizeof(hdr), &hdr);
    } else if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        h->ended = true;
    }
    return n > 0;
}

/* --- what the stack asks of us -------------------------------------------------------------------
 */

static void guest_error(const char *msg, void *opaque)
{
    (void)opaque;
    log_debug("net: the guest's mistake: %s", msg);
}

static int64_t clock_get_ns(void *opaque)
{
    (void)opaque;
    return now_ns();
}

static void *timer_new(SlirpTimerCb fn, void *fn_opaque, void *opaque)
{
    struct helper *h = opaque;

    for (unsigned i = 0; i < TIMERS; i++)
        if (!h->timers[i].used) {
            h->timers[i] = (struct timer){.used = true, .fn = fn, .opaque = fn_opaque};
            return &h->timers[i];
        }
    log_error("net: the TCP/IP stack wants more than %d timers", TIMERS);
    _exit(1);
}

static void timer_free(void *timer, void *opaque)
{
    (void)opaque;
    ((struct timer *)timer)->used = false;
}

static void timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
    (void)opaque;
    ((struct timer *)timer)->at_ms = expire_ms;
}

static void no_fd(int fd, void *opaque)
{
    (void)fd, (void)opaque;
}

static void no_notify(void *opaque)
{
    (void)opaque;
}

static const SlirpCb callbacks = {.send_packet = send_packet,
                                  .guest_error = guest_error,
                                  .clock_get_ns = clock_get_ns,
                                  .timer_new = timer_new,
                                  .timer_free = timer_free,
                                  .timer_mod = timer_mod,
                                  .register_poll_fd = no_fd,
                                  .unregister_poll_fd = no_fd,
                                  .notify = no_notify};

/* Calls what is due; ms until the next one, at most `limit`. */
static u32 run_timers(struct helper *h, u32 limit)
{
    s64 now = now_ns() / 1000000;

    for (unsigned i = 0; i < TIMERS; i++) {
        struct timer *t = &h->timers[i];

        if (!t->used || !t->at_ms)
            continue;
        if (t->at_ms <= now) {
            t->at_ms = 0;
            t->fn(t->opaque);
        }
        if (t->at_ms > now && t->at_ms - now < (s64)limit)
            limit = (u32)(t->at_ms - now);
    }
    return limit;
}

/* --- the loop ------------------------------------------------------------------------------------
 */

static int add_poll(int fd, int events, void *opaque)
{
    struct helper *h = opaque;
    short e = 0;

    if (h->nfds == h->cap) {
        unsigned cap = h->cap ? 2 * h->cap : 64;
        struct pollfd *more = realloc(h->fds, cap * sizeof(*more));

        if (!more)
            return -1; /* the stack looks at this one again next time */
        h->fds = more;
        h->cap = cap;
    }
    e |= events & SLIRP_POLL_IN ? POLLIN : 0;
    e |= events & SLIRP_POLL_OUT ? POLLOUT : 0;
    e |= events & SLIRP_POLL_PRI ? POLLPRI : 0;
    h->fds[h->nfds] = (struct pollfd){.fd = fd, .events = e};
    return (int)h->nfds++;
}

static int get_revents(int index, void *opaque)
{
    const struct helper *h = opaque;
    short r = index >= 0 ? h->fds[index].revents : 0;
    int e = 0;

    e |= r & POLLIN ? SLIRP_POLL_IN : 0;
    e |= r & POLLOUT ? SLIRP_POLL_OUT : 0;
    e |= r & POLLPRI ? SLIRP_POLL_PRI : 0;
    e |= r & POLLERR ? SLIRP_POLL_ERR : 0;
    e |= r & POLLHUP ? SLIRP_POLL_HUP : 0;
    return e;
}

static void serve(struct helper *h)
{
    while (!h->ended) {
        u32 timeout = run_timers(h, 60000);
        bool full;
        int r;

        send_held(h);
        full = h->held > HELD_STOP;
        h->nfds = 0;
        add_poll(h->fd, SLIRP_POLL_IN | (h->first ? SLIRP_POLL_OUT : 0), h);
        lib.slirp_pollfds_fill(h->slirp, &timeout, add_poll, h);
        /* The stack's sockets wait while the guest does not take what came from them. */
        r = poll(h->fds, full ? 1 : h->nfds, (int)timeout);
        if (full)
            for (unsigned i = 1; i < h->nfds; i++)
                h->fds[i].revents = 0;
        if (r > 0 && h->fds[0].revents) {
            for (unsigned n = 0; n < BATCH && !h->ended && receive(h); n++)
                ;
        }
        lib.slirp_pollfds_poll(h->slirp, r < 0, get_revents, h);
    }
}

/* --- set-up --------------------------------------------------------------------------------------
 */

static int create_stack(struct helper *h, const struct net_options *o, char *err, size_t err_size)
{
    SlirpConfig cfg = {.version = 4,
                       .restricted = o->restricted,
                       .in_enabled = true,
                       .vnetwork = o->net,
                       .vnetmask = o->mask,
                       .vhost = o->host,
                       .vdhcp_start = o->guest,
                       .vnameserver = o->dns,
                       .in6_enabled = true,
                       .vprefix_len = 64,
                       .vhostname = o->hostname[0] ? o->hostname : NULL,
                       .if_mtu = STACK_MTU,
                       .if_mru = STACK_MTU};

    char why[160];

    if (library_load(SONAME, functions, ARRAY_SIZE(functions), why, sizeof(why))) {
        snprintf(err, err_size, "--net: %s", why);
        return -ENOENT;
    }
    inet_pton(AF_INET6, "fec0::", &cfg.vprefix_addr6);
    inet_pton(AF_INET6, "fec0::2", &cfg.vhost6);
    inet_pton(AF_INET6, "fec0::3", &cfg.vnameserver6);
    h->slirp = lib.slirp_new(&cfg, &callbacks, h);
    if (!h->slirp) {
        snprintf(err, err_size, "--net: the TCP/IP stack refuses these settings");
        return -EINVAL;
    }
    for (unsigned i = 0; i < o->npublish; i++) {
        const struct net_publish *p = &o->publish[i];
        struct in_addr any = {0};

        if (lib.slirp_add_hostfwd(h->slirp, p->udp, p->addr, p->host_port, any, p->guest_port)) {
            snprintf(err, err_size, "--publish %s: %s port %u of the host: %s", p->text,
                     p->udp ? "UDP" : "TCP", p->host_port, strerror(errno));
            return -EINVAL;
        }
    }
    return 0;
}

/* Whoever sees the end of our socket finds published ports free. */
static void close_sockets(struct helper *h)
{
    for (unsigned i = 1; i < h->nfds; i++)
        close(h->fds[i].fd);
}

int net_helper_main(const struct net_options *o, int fd)
{
    struct helper *h = calloc(1, sizeof(*h));
    char hello[NET_HELPER_HELLO] = "";

    if (!h)
        return 1;
    h->fd = fd;
    h->last = &h->first;
    h->mtu = o->mtu ? o->mtu : MTU_DEFAULT;
    if (getrandom(&h->mss.seed, sizeof(h->mss.seed), 0) < 0)
        h->mss.seed = (u64)now_ns();
    if (!create_stack(h, o, hello, sizeof(hello)))
        net_helper_confine(hello, sizeof(hello));
    if (send(fd, hello, strlen(hello) + 1, MSG_NOSIGNAL) < 0 || hello[0])
        return 1;
    serve(h);
    close_sockets(h);
    return 0;
}
