/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/net/options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/net/net.h"

#define MTU_MIN 1280 /* IPv6 needs it (RFC 8200 5) */
#define MTU_MAX 65521

static int bad(char *err, size_t err_size, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static int bad(char *err, size_t err_size, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(err, err_size, fmt, ap);
    va_end(ap);
    return -EINVAL;
}

static bool parse_number(const char *text, unsigned long min, unsigned long max, unsigned long *out)
{
    char *end;

    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    *out = strtoul(text, &end, 10);
    return !errno && !*end && *out >= min && *out <= max;
}

static bool parse_mac(const char *text, u8 mac[6])
{
    unsigned v[6];
    int n = 0;

    if (strlen(text) != 17 ||
        sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &n) !=
            6 ||
        n != 17)
        return false;
    for (unsigned i = 0; i < 6; i++)
        mac[i] = (u8)v[i];
    /* Not a group address, not none. */
    return !(mac[0] & 1) && (v[0] | v[1] | v[2] | v[3] | v[4] | v[5]);
}

/* ADDRESS/BITS; the host is .2, the name server .3, guests get .15: addresses people know. */
static bool parse_net(struct net_options *o, const char *text)
{
    char addr[INET_ADDRSTRLEN];
    const char *slash = strchr(text, '/');
    size_t n = slash ? (size_t)(slash - text) : strlen(text);
    unsigned long bits = 24;
    u32 mask, base;

    if (n >= sizeof(addr))
        return false;
    memcpy(addr, text, n);
    addr[n] = '\0';
    if (slash && !parse_number(slash + 1, 8, 27, &bits))
        return false;
    if (inet_pton(AF_INET, addr, &o->net) != 1)
        return false;
    mask = ~(u32)0 << (32 - bits);
    base = ntohl(o->net.s_addr);
    if (base & ~mask)
        return false;
    o->mask.s_addr = htonl(mask);
    o->host.s_addr = htonl(base + 2);
    o->dns.s_addr = htonl(base + 3);
    o->guest.s_addr = htonl(base + 15);
    return true;
}

static bool parse_hostname(struct net_options *o, const char *text)
{
    size_t n = strlen(text);

    if (!n || n >= sizeof(o->hostname))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.", text[i]))
            return false;
    memcpy(o->hostname, text, n + 1);
    return true;
}

static bool parse_switch(const char *text, bool *out)
{
    *out = !strcmp(text, "on");
    return *out || !strcmp(text, "off");
}

/* One NAME=VALUE of a network of kind o->kind. */
static int sub_option(struct net_options *o, const char *name, const char *value, char *err,
                      size_t err_size, struct in_addr *dns)
{
    bool user = o->kind == NET_USER;
    unsigned long v = 0;
    const char *want;

    if (!strcmp(name, "mac")) {
        o->has_mac = parse_mac(value, o->mac);
        want = o->has_mac ? NULL : "an address such as 52:54:00:12:34:56";
    } else if (!strcmp(name, "mtu")) {
        want = parse_number(value, MTU_MIN, MTU_MAX, &v) ? NULL : "a number from 1280 to 65521";
        o->mtu = (u16)v;
    } else if (!strcmp(name, "queues") && !user) {
        want = parse_number(value, 1, NET_QUEUES_MAX, &v) ? NULL : "a number from 1 to 8";
        o->queues = (unsigned)v;
    } else if (!strcmp(name, "restrict") && user) {
        want = parse_switch(value, &o->restricted) ? NULL : "on or off";
    } else if (!strcmp(name, "net") && user) {
        want = parse_net(o, value) ? NULL : "a network such as 10.0.2.0/24, /8 to /27";
    } else if (!strcmp(name, "dns") && user) {
        want = inet_pton(AF_INET, value, dns) == 1 ? NULL : "an IPv4 address";
    } else if (!strcmp(name, "publish") && user) {
        return net_parse_publish(o, value, err, err_size);
    } else if (!strcmp(name, "hostname") && user) {
        want = parse_hostname(o, value) ? NULL : "up to 63 letters, digits, dots and hyphens";
    } else {
        return bad(err, err_size, "--net: unknown option '%s' of %s", name,
                   user ? "a user network: it has mac, mtu, restrict, net, dns, hostname, publish"
                        : "a tap network: it has mac, mtu, queues");
    }
    return want ? bad(err, err_size, "--net: %s=%s: it is %s", name, value, want) : 0;
}

int net_parse(struct net_options *o, const char *spec, char *err, size_t err_size)
{
    char text[NET_SPEC_MAX], *save, *word, *value;
    struct in_addr dns = {0};
    int r;

    memset(o, 0, sizeof(*o));
    o->queues = 1;
    parse_net(o, "10.0.2.0/24");
    if (strlen(spec) >= sizeof(text))
        return bad(err, err_size, "--net: longer than %zu characters", sizeof(text) - 1);
    strcpy(text, spec);
    word = strtok_r(text, ",", &save);
    if (word && !strcmp(word, "user")) {
        o->kind = NET_USER;
    } else if (word && !strncmp(word, "tap=", 4)) {
        o->kind = NET_TAP;
        if (!word[4] || strlen(word + 4) >= IFNAMSIZ || strchr(word + 4, '/'))
            return bad(err, err_size, "--net: tap=%s: no name an interface can have", word + 4);
        strcpy(o->ifname, word + 4);
    } else {
        return bad(err, err_size, "--net: '%s': it is user, tap=INTERFACE or none", spec);
    }
    while ((word = strtok_r(NULL, ",", &save)) != NULL) {
        value = strchr(word, '=');
        if (value)
            *value++ = '\0';
        r = sub_option(o, word, value ? value : "", err, err_size, &dns);
        if (r)
            return r;
    }
    if (dns.s_addr)
        o->dns = dns;
    return 0;
}

int net_parse_publish(struct net_options *o, const char *text, char *err, size_t err_size)
{
    struct net_publish *p = &o->publish[o->npublish];
    char copy[80], *rest = copy, *colon;
    unsigned long host, guest;

    if (o->npublish == NET_PUBLISH_MAX)
        return bad(err, err_size, "--publish: more than %d ports", NET_PUBLISH_MAX);
    *p = (struct net_publish){.udp = false};
    if (strlen(text) >= sizeof(copy))
        goto malformed;
    strcpy(copy, text);
    strcpy(p->text, text);
    if (!strncmp(rest, "udp:", 4) || !strncmp(rest, "tcp:", 4)) {
        p->udp = rest[0] == 'u';
        rest += 4;
    }
    colon = strrchr(rest, ':');
    if (!colon || !parse_number(colon + 1, 1, 65535, &guest))
        goto malformed;
    *colon = '\0';
    colon = strrchr(rest, ':');
    if (colon) {
        *colon = '\0';
        if (inet_pton(AF_INET, rest, &p->addr) != 1)
            goto malformed;
        rest = colon + 1;
    }
    if (!parse_number(rest, 1, 65535, &host))
        goto malformed;
    p->host_port = (u16)host;
    p->guest_port = (u16)guest;
    o->npublish++;
    return 0;

malformed:
    return bad(err, err_size,
               "--publish: '%s': it is [udp:][HOSTADDRESS:]HOSTPORT:GUESTPORT, with an IPv4 "
               "address and ports from 1 to 65535",
               text);
}
