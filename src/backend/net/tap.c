/* SPDX-License-Identifier: Apache-2.0 */
/* tun/tap (Documentation/networking/tuntap.rst of the kernel), one descriptor a queue. */
#include "backend/net/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backend/net/fdnet.h"
#include "base/log.h"

_Static_assert(NETDEV_CSUM == TUN_F_CSUM && NETDEV_TSO4 == TUN_F_TSO4 &&
                   NETDEV_TSO6 == TUN_F_TSO6 && NETDEV_TSO_ECN == TUN_F_TSO_ECN &&
                   NETDEV_UFO == TUN_F_UFO,
               "backend.h says so");

struct tap {
    struct fdnet f; /* first */
    char ifname[IFNAMSIZ];
};

static void set_offloads(struct fdnet *f, u32 offloads)
{
    struct tap *t = container_of(f, struct tap, f);

    /* Those of the device, not of a queue. */
    if (ioctl(f->queue[0].fd, TUNSETOFFLOAD, (unsigned long)offloads))
        log_error("net: %s: cannot set offloads %#x: %s", t->ifname, offloads, strerror(errno));
}

static void attach(struct fdnet *f, unsigned q, bool on)
{
    struct tap *t = container_of(f, struct tap, f);
    struct ifreq r = {.ifr_flags = (short)(on ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE)};

    if (ioctl(f->queue[q].fd, TUNSETQUEUE, &r))
        log_error("net: %s: queue %u: %s", t->ifname, q, strerror(errno));
}

static void ended(struct fdnet *f)
{
    log_error("net: %s is gone, the guest's link is down", container_of(f, struct tap, f)->ifname);
}

static void close_tap(struct fdnet *f)
{
    for (unsigned i = 0; i < f->n.queues; i++)
        close(f->queue[i].fd);
    free(container_of(f, struct tap, f));
}

static const char *why(int error, bool multi)
{
    switch (error) {
    case EPERM:
        return "not permitted; root can make it for a user: ip tuntap add NAME mode tap user USER";
    case EBUSY:
        return "in use by another program";
    case EINVAL:
        return multi ? "no tap device with several queues (ip tuntap add NAME mode tap multi_queue)"
                     : "no tap device with one queue";
    default:
        return strerror(error);
    }
}

/* One queue: its descriptor, or -errno with one line in err. */
static int open_queue(const struct net_options *o, char *err, size_t err_size)
{
    struct ifreq r = {0};
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), size = NETDEV_HDR_SIZE, e;

    if (fd < 0) {
        e = errno;
        snprintf(err, err_size, "--net tap=%s: /dev/net/tun: %s", o->ifname, strerror(e));
        return -e;
    }
    memcpy(r.ifr_name, o->ifname, IFNAMSIZ);
    r.ifr_flags =
        (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (o->queues > 1 ? IFF_MULTI_QUEUE : 0));
    if (!ioctl(fd, TUNSETIFF, &r) && !ioctl(fd, TUNSETVNETHDRSZ, &size))
        return fd;
    e = errno;
    snprintf(err, err_size, "--net tap=%s: %s", o->ifname, why(e, o->queues > 1));
    close(fd);
    return -e;
}

/* One made here is brought up here; one made by somebody else is as they want it. */
static void bring_up(const struct net_options *o, bool existed)
{
    struct ifreq r = {0};
    int s = existed ? -1 : socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (s < 0)
        return;
    memcpy(r.ifr_name, o->ifname, IFNAMSIZ);
    if (!ioctl(s, SIOCGIFFLAGS, &r)) {
        r.ifr_flags |= IFF_UP;
        if (ioctl(s, SIOCSIFFLAGS, &r))
            log_warn("net: %s: cannot bring it up: %s", o->ifname, strerror(errno));
    }
    close(s);
}

int net_tap_start(const struct net_options *o, struct net_fds *f, char *err, size_t err_size)
{
    bool existed = if_nametoindex(o->ifname) != 0;

    for (f->n = 0; f->n < o->queues; f->n++) {
        int fd = open_queue(o, err, err_size);

        if (fd < 0) {
            net_close(f);
            return fd;
        }
        f->fd[f->n] = fd;
    }
    bring_up(o, existed);
    return 0;
}

/* A descriptor of /dev/net/tun after TUNSETIFF: of the character devices there are, it alone takes
 * this. Another one could keep the event loop for ever, as could one that blocks. */
static bool is_queue(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    struct stat st;

    /* Not glibc's fstat, which a confined process may not call (newfstatat). */
    return flags >= 0 && !syscall(SYS_fstat, fd, &st) && S_ISCHR(st.st_mode) &&
           !ioctl(fd, TUNSETOFFLOAD, 0ul) && !fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

struct netdev *net_tap_adopt(const struct net_options *o, struct net_fds *f, char *err,
                             size_t err_size)
{
    u32 offloads = NETDEV_CSUM | NETDEV_TSO4 | NETDEV_TSO6 | NETDEV_TSO_ECN;
    struct tap *t = calloc(1, sizeof(*t));
    bool good = t && f->n == o->queues;

    for (unsigned i = 0; i < f->n && good; i++)
        good = is_queue(f->fd[i]);
    if (!good) {
        snprintf(err, err_size, "--net tap=%s: %s", o->ifname,
                 t ? "what came with the request is not as many of its queues" : "out of memory");
        free(t);
        return NULL;
    }
    for (unsigned i = 0; i < f->n; i++) {
        t->f.queue[i].fd = f->fd[i];
        f->fd[i] = -1;
    }
    memcpy(t->ifname, o->ifname, IFNAMSIZ);
    t->f.set_offloads = set_offloads;
    t->f.attach = o->queues > 1 ? attach : NULL;
    t->f.ended = ended;
    t->f.close = close_tap;
    t->f.n.offloads = offloads;
    t->f.n.mtu = o->mtu;
    fdnet_init(&t->f, o->queues);
    for (unsigned i = 1; i < o->queues; i++)
        attach(&t->f, i, false);
    return &t->f.n;
}

struct netdev *net_tap_open(const struct net_options *o, char *err, size_t err_size)
{
    struct net_fds f;
    struct netdev *n;

    if (net_tap_start(o, &f, err, err_size))
        return NULL;
    n = net_tap_adopt(o, &f, err, err_size);
    net_close(&f);
    return n;
}
