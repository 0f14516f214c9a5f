/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both ends of network measurements and tests; the same program runs in the guest and on the host.
 *
 *   net serve PORT             answers the next two over TCP, IPv4 and IPv6, until killed
 *   net get [-c] ADDR PORT MIB receives; -c: checks every byte
 *   net put [-c] ADDR PORT MIB sends; -c: the other end checks every byte
 *   net echo PORT              sends datagrams back, until killed
 *   net ping ADDR PORT N SIZE  N datagrams there and back, one after the other
 *   net cut IF                 the interface gets no more big segments (ethtool -K IF rx-gro-hw
 * off)
 *
 * One line of result: "net get 1048576 bytes 0.012 s 83.2 MiB/s".
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (256u << 10)

/* What begins a connection. */
struct request {
    uint32_t put, check;
    uint64_t bytes;
};

/* Twice the data's period: any window of CHUNK bytes is in one piece. */
static uint8_t pattern[2 * CHUNK], buffer[CHUNK];

static _Noreturn void fail(const char *what)
{
    printf("net: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void make_pattern(void)
{
    uint32_t v = 1;

    for (unsigned i = 0; i < CHUNK; i++) {
        v = v * 1664525 + 1013904223;
        pattern[i] = pattern[CHUNK + i] = (uint8_t)(v >> 24);
    }
}

static bool send_all(int s, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes;) {
        size_t n = bytes - at < CHUNK ? (size_t)(bytes - at) : CHUNK;
        ssize_t r = send(s, pattern + at % CHUNK, n, MSG_NOSIGNAL);

        if (r <= 0)
            return false;
        at += (uint64_t)r;
    }
    return true;
}

static bool receive_all(int s, uint64_t bytes, bool check)
{
    for (uint64_t at = 0; at < bytes;) {
        ssize_t r = recv(s, buffer, sizeof(buffer), 0);

        if (r <= 0)
            return false;
        if (check && memcmp(buffer, pattern + at % CHUNK, (size_t)r)) {
            printf("net: wrong data within %zd bytes at %llu\n", r, (unsigned long long)at);
            return false;
        }
        at += (uint64_t)r;
    }
    return true;
}

static socklen_t address(const char *text, const char *port, struct sockaddr_storage *a)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)a;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)a;

    memset(a, 0, sizeof(*a));
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)atoi(port));
        return sizeof(*v4);
    }
    if (inet_pton(AF_INET6, text, &v6->sin6_addr) != 1)
        fail(text);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons((uint16_t)atoi(port));
    return sizeof(*v6);
}

static int open_socket(const char *text, const char *port, int type, bool server)
{
    struct sockaddr_storage a;
    socklen_t n = address(text, port, &a);
    int s = socket(a.ss_family, type, 0), one = 1, zero = 0;

    if (s < 0)
        fail("socket");
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (a.ss_family == AF_INET6)
        setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
    if (server ? bind(s, (struct sockaddr *)&a, n) : connect(s, (struct sockaddr *)&a, n))
        fail(server ? "bind" : "connect");
    return s;
}

static void serve_one(int s)
{
    struct request q;

    if (recv(s, &q, sizeof(q), MSG_WAITALL) != sizeof(q))
        return;
    if (!q.put) {
        send_all(s, q.bytes);
    } else if (receive_all(s, q.bytes, q.check) && send(s, "k", 1, MSG_NOSIGNAL) != 1) {
        return;
    }
}

static int serve(const char *port)
{
    int l = open_socket("::", port, SOCK_STREAM, true), s;

    signal(SIGCHLD, SIG_IGN);
    if (listen(l, 16))
        fail("listen");
    printf("net serve ready\n");
    fflush(stdout);
    while ((s = accept(l, NULL, NULL)) >= 0) {
        if (!fork()) {
            serve_one(s);
            exit(0);
        }
        close(s);
    }
    fail("accept");
}

static int transfer(bool put, bool check, char **arg)
{
    struct request q = {.put = put, .check = check, .bytes = strtoull(arg[2], NULL, 0) << 20};
    int s = open_socket(arg[0], arg[1], SOCK_STREAM, false);
    double start = now(), seconds;
    char ack;

    if (send(s, &q, sizeof(q), MSG_NOSIGNAL) != sizeof(q))
        fail("send");
    if (put ? !send_all(s, q.bytes) || recv(s, &ack, 1, 0) != 1 : !receive_all(s, q.bytes, check))
        fail(put ? "put" : "get");
    seconds = now() - start;
    printf("net %s %llu bytes %.3f s %.1f MiB/s\n", put ? "put" : "get",
           (unsigned long long)q.bytes, seconds, (double)(q.bytes >> 20) / seconds);
    return 0;
}

static int echo(const char *port)
{
    int s = open_socket("::", port, SOCK_DGRAM, true);
    struct sockaddr_storage from;

    printf("net echo ready\n");
    fflush(stdout);
    for (;;) {
        socklen_t n = sizeof(from);
        ssize_t r = recvfrom(s, buffer, sizeof(buffer), 0, (struct sockaddr *)&from, &n);

        if (r < 0 || sendto(s, buffer, (size_t)r, 0, (struct sockaddr *)&from, n) < 0)
            fail("echo");
    }
}

static int ping(char **arg)
{
    int s = open_socket(arg[0], arg[1], SOCK_DGRAM, false);
    unsigned n = (unsigned)atoi(arg[2]), got = 0;
    size_t size = (size_t)atoi(arg[3]);
    double start = now();

    if (size > CHUNK)
        size = CHUNK;
    for (unsigned i = 0; i < n; i++) {
        struct pollfd p = {.fd = s, .events = POLLIN};

        if (send(s, pattern + i, size, 0) != (ssize_t)size)
            fail("send");
        if (poll(&p, 1, 2000) == 1 && recv(s, buffer, sizeof(buffer), 0) == (ssize_t)size &&
            !memcmp(buffer, pattern + i, size))
            got++;
    }
    printf("net ping %u of %u back %.3f ms each\n", got, n, (now() - start) * 1000 / n);
    return got != n;
}

static int cut(const char *name)
{
    struct ethtool_gstrings *names = calloc(1, sizeof(*names) + 256 * ETH_GSTRING_LEN);
    struct ethtool_sfeatures *set = calloc(1, sizeof(*set) + 8 * sizeof(set->features[0]));
    struct ifreq r = {.ifr_data = (char *)names};
    int s = socket(AF_INET, SOCK_DGRAM, 0);

    if (!names || !set || s < 0)
        fail("cut");
    names->cmd = ETHTOOL_GSTRINGS;
    names->string_set = ETH_SS_FEATURES;
    strncpy(r.ifr_name, name, IFNAMSIZ - 1);
    if (ioctl(s, SIOCETHTOOL, &r))
        fail(name);
    set->cmd = ETHTOOL_SFEATURES;
    set->size = (names->len + 31) / 32;
    for (unsigned i = 0; i < names->len && i < 256; i++)
        if (!strcmp((const char *)names->data + i * ETH_GSTRING_LEN, "rx-gro-hw"))
            set->features[i / 32].valid |= 1u << (i % 32);
    r.ifr_data = (char *)set;
    if (ioctl(s, SIOCETHTOOL, &r) < 0)
        fail("rx-gro-hw");
    return 0;
}

int main(int argc, char **argv)
{
    bool check = argc > 2 && !strcmp(argv[2], "-c");
    char **arg = argv + 2 + check;
    int n = argc - 2 - check;

    make_pattern();
    if (n == 1 && !strcmp(argv[1], "serve"))
        return serve(arg[0]);
    if (n == 3 && (!strcmp(argv[1], "get") || !strcmp(argv[1], "put")))
        return transfer(argv[1][0] == 'p', check, arg);
    if (n == 1 && !strcmp(argv[1], "echo"))
        return echo(arg[0]);
    if (n == 4 && !strcmp(argv[1], "ping"))
        return ping(arg);
    if (n == 1 && !strcmp(argv[1], "cut"))
        return cut(arg[0]);
    fprintf(stderr, "usage: net serve|get|put|echo|ping ... (see the source)\n");
    return 2;
}
