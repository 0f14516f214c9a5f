/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/net/net.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "backend/net/tap.h"
#include "backend/net/user.h"

/*
 * The guest's address when none is given. A user-mode network is nobody else's, so people get the
 * address they know. On a tap there are others: it depends on the host and the interface, and is
 * the same each time, for guests know their interfaces by it.
 */
static void default_mac(const struct net_options *o, unsigned index, u8 mac[6])
{
    u8 base[6] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
    char name[80] = "";
    u32 h = 2166136261u; /* FNV-1a */

    if (o->kind == NET_USER) {
        base[5] = (u8)(base[5] + index);
    } else {
        gethostname(name, sizeof(name) - IFNAMSIZ - 1);
        strcat(name, "/");
        strcat(name, o->ifname);
        for (const char *s = name; *s; s++)
            h = (h ^ (u8)*s) * 16777619u;
        base[3] = (u8)(h >> 16);
        base[4] = (u8)(h >> 8);
        base[5] = (u8)h;
    }
    memcpy(mac, base, 6);
}

size_t net_add_mac(char spec[NET_SPEC_MAX], const u8 mac[6])
{
    size_t n = strlen(spec);

    return (size_t)snprintf(spec + n, NET_SPEC_MAX - n, ",mac=%02x:%02x:%02x:%02x:%02x:%02x",
                            mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
}

struct netdev *net_open(const struct net_request *r, u8 mac[6], char *err, size_t err_size)
{
    struct net_options o;

    if (net_parse(&o, r->spec, err, err_size))
        return NULL;
    for (unsigned i = 0; i < r->npublish; i++)
        if (net_parse_publish(&o, r->publish[i], err, err_size))
            return NULL;
    if (o.kind == NET_TAP && o.npublish) {
        snprintf(err, err_size, "--publish: only a user network has ports to publish");
        return NULL;
    }
    if (o.has_mac)
        memcpy(mac, o.mac, 6);
    else
        default_mac(&o, r->index, mac);
    return o.kind == NET_USER ? net_user_open(&o, err, err_size) : net_tap_open(&o, err, err_size);
}

int net_start(const char *spec, char full[NET_SPEC_MAX], struct net_fds *f, char *err,
              size_t err_size)
{
    struct net_options o;
    size_t n;
    u8 mac[6];
    int r = net_parse(&o, spec, err, err_size);

    if (r)
        return r;
    n = (size_t)snprintf(full, NET_SPEC_MAX, "%s", spec);
    /* A user network's depends on what the machine has; a tap's on the host's name. */
    if (o.kind == NET_TAP && !o.has_mac) {
        default_mac(&o, 0, mac);
        n += net_add_mac(full, mac);
    }
    if (n >= NET_SPEC_MAX) {
        snprintf(err, err_size, "--net: longer than %d characters", NET_SPEC_MAX - 1);
        return -EINVAL;
    }
    return o.kind == NET_USER ? net_user_start(&o, f, err, err_size)
                              : net_tap_start(&o, f, err, err_size);
}

void net_close(struct net_fds *f)
{
    while (f->n)
        if (f->fd[--f->n] >= 0)
            close(f->fd[f->n]);
}

struct netdev *net_adopt(const struct net_request *r, struct net_fds *f, u8 mac[6], char *err,
                         size_t err_size)
{
    struct net_options o;

    if (net_parse(&o, r->spec, err, err_size))
        return NULL;
    if (o.kind == NET_TAP && !o.has_mac) {
        snprintf(err, err_size, "--net: mac= is missing");
        return NULL;
    }
    if (o.has_mac)
        memcpy(mac, o.mac, 6);
    else
        default_mac(&o, r->index, mac);
    return o.kind == NET_USER ? net_user_adopt(&o, f, err, err_size)
                              : net_tap_adopt(&o, f, err, err_size);
}
