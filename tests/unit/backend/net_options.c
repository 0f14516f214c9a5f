/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/net/net.h"
#include "backend/net/options.h"
#include "test.h"

static struct net_options o;
static char err[256];

static bool parses(const char *spec)
{
    int r = net_parse(&o, spec, err, sizeof(err));

    /* Refused means said why, in one line. */
    assert_true(!r || (err[0] && !strchr(err, '\n')));
    return !r;
}

static bool publishes(const char *text)
{
    return !net_parse_publish(&o, text, err, sizeof(err));
}

static u32 ip(struct in_addr a)
{
    return ntohl(a.s_addr);
}

static void user__has_the_usual_addresses(void **state)
{
    (void)state;
    assert_true(parses("user"));
    assert_int_equal(o.kind, NET_USER);
    assert_int_equal(ip(o.net), 0x0a000200);
    assert_int_equal(ip(o.host), 0x0a000202);
    assert_int_equal(ip(o.dns), 0x0a000203);
    assert_int_equal(ip(o.guest), 0x0a00020f);
    assert_false(o.has_mac || o.restricted || o.mtu);
}

static void user__takes_its_options(void **state)
{
    static const u8 mac[] = {0x02, 0xaa, 0xbb, 0xcc, 0xdd, 0xee};

    (void)state;
    assert_true(parses("user,mac=02:aa:bb:cc:dd:ee,restrict=on,dns=9.9.9.9,net=192.168.0.0/16,"
                       "hostname=a-b.c,mtu=9000"));
    assert_memory_equal(o.mac, mac, 6);
    assert_true(o.has_mac && o.restricted);
    assert_int_equal(ip(o.dns), 0x09090909); /* whatever order they come in */
    assert_int_equal(ip(o.guest), 0xc0a8000f);
    assert_int_equal(ip(o.mask), 0xffff0000);
    assert_string_equal(o.hostname, "a-b.c");
    assert_int_equal(o.mtu, 9000);
}

static void user__has_ports_of_its_own(void **state)
{
    (void)state;
    assert_true(parses("user,publish=2222:22,publish=udp:127.0.0.1:53:5353,restrict=on"));
    assert_int_equal(o.npublish, 2);
    assert_int_equal(o.publish[0].host_port, 2222);
    assert_int_equal(o.publish[1].guest_port, 5353);
    assert_true(o.publish[1].udp && o.restricted);
    assert_string_equal(o.publish[1].text, "udp:127.0.0.1:53:5353");
    assert_false(parses("user,publish=22"));
    assert_false(parses("tap=t,publish=2222:22"));
}

static int open_files(void)
{
    int n = 0;

    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* What comes in place of a helper's socket and pipe, or of a tap's queues. */
static void adopt__takes_nothing_else(void **state)
{
    static const char *const specs[] = {"user", "tap=t,mac=52:54:00:00:00:01",
                                        "tap=t,queues=3,mac=52:54:00:00:00:01", "tap=t",
                                        "nonsense"};
    int before = open_files();

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(specs); i++)
        for (unsigned n = 0; n <= 3; n++)
            for (unsigned kind = 0; kind < 5; kind++) {
                struct net_request r = {.spec = specs[i]};
                struct net_fds f = {.n = n};
                u8 mac[6];

                for (unsigned k = 0; k < n; k++)
                    f.fd[k] = kind == 0   ? open("/dev/null", O_RDWR)
                              : kind == 1 ? socket(AF_UNIX, SOCK_SEQPACKET, 0)
                              : kind == 2 ? memfd_create("f", 0)
                              : kind == 3 ? open("/dev/net/tun", O_RDWR) /* no interface's */
                                          : -1;
                err[0] = 0;
                assert_null(net_adopt(&r, &f, mac, err, sizeof(err)));
                assert_true(err[0] && !strchr(err, '\n'));
                net_close(&f);
            }
    assert_int_equal(open_files(), before);
}

/* Whoever opened it may not have thought of that: reading it must not keep the event loop. */
static void adopt__lets_no_queue_block(void **state)
{
    struct net_request r = {.spec = "tap=t,mac=52:54:00:00:00:01"};
    struct ifreq i = {.ifr_name = "tap%d", .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    struct net_fds f = {.fd = {open("/dev/net/tun", O_RDWR)}, .n = 1};
    int fd = f.fd[0];
    struct netdev *n;
    u8 mac[6];

    (void)state;
    if (fd < 0 || ioctl(fd, TUNSETIFF, &i)) {
        net_close(&f);
        skip(); /* not root's, or no such thing here */
    }
    n = net_adopt(&r, &f, mac, err, sizeof(err));
    if (!n)
        fail_msg("%s", err);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    n->ops->close(n);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void *flood(void *fd)
{
    while (send(*(int *)fd, "x", 1, MSG_NOSIGNAL) == 1)
        ;
    return NULL;
}

/* The process that is a user network does not want to end: the machine goes on without it. */
static void closing__is_not_for_ever(void **state)
{
    struct net_request r = {.spec = "user"};
    u64 began = host_monotonic_ns();
    struct net_fds f = {.n = 2};
    int sv[2], messages[2];
    struct netdev *n;
    pthread_t thread;
    u8 mac[6];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv), 0);
    assert_int_equal(pipe(messages), 0);
    f.fd[0] = sv[0];
    f.fd[1] = messages[0];
    n = net_adopt(&r, &f, mac, err, sizeof(err));
    if (!n)
        fail_msg("%s", err);
    assert_int_equal(pthread_create(&thread, NULL, flood, &sv[1]), 0);
    n->ops->close(n);
    assert_true(host_monotonic_ns() - began < 20 * 1000000000ull);
    pthread_join(thread, NULL);
    close(sv[1]);
    close(messages[1]);
}

static void tap__takes_its_options(void **state)
{
    (void)state;
    assert_true(parses("tap=tap0,queues=4,mac=52:54:00:00:00:01"));
    assert_int_equal(o.kind, NET_TAP);
    assert_string_equal(o.ifname, "tap0");
    assert_int_equal(o.queues, 4);
}

static void nonsense__is_refused(void **state)
{
    static const char *const bad[] = {
        "",
        ",",
        "users",
        "bridge",
        "tap",
        "tap=",
        "tap=a/b",
        "tap=an-interface-name",
        "tap=t,queues=0",
        "tap=t,queues=9",
        "tap=t,queues=",
        "tap=t,restrict=on",
        "user,queues=2",
        "user,mac=",
        "user,mac=01:00:00:00:00:00",
        "user,mac=00:00:00:00:00:00",
        "user,mac=52:54:00:12:34:5",
        "user,mac=52:54:00:12:34:567",
        "user,mac=52-54-00-12-34-56",
        "user,mtu=1279",
        "user,mtu=65536",
        "user,mtu=-1",
        "user,restrict=yes",
        "user,restrict",
        "user,net=10.0.2.0/28",
        "user,net=10.0.2.1/24",
        "user,net=10.0.2/24",
        "user,net=fe80::/64",
        "user,dns=localhost",
        "user,hostname=",
        "user,hostname=a b",
        "user,frob=1",
        "user,=",
    };
    char longest[600];

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        if (parses(bad[i]))
            fail_msg("taken: %s", bad[i]);
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    assert_false(parses(longest));
}

static void publish__is_taken_apart(void **state)
{
    (void)state;
    assert_true(parses("user"));
    assert_true(publishes("2222:22"));
    assert_true(publishes("udp:127.0.0.1:5353:53"));
    assert_true(publishes("tcp:0.0.0.0:80:8080"));
    assert_int_equal(o.npublish, 3);
    assert_false(o.publish[0].udp);
    assert_int_equal(ip(o.publish[0].addr), 0);
    assert_int_equal(o.publish[0].host_port, 2222);
    assert_int_equal(o.publish[0].guest_port, 22);
    assert_true(o.publish[1].udp);
    assert_int_equal(ip(o.publish[1].addr), 0x7f000001);
    assert_int_equal(o.publish[1].host_port, 5353);
    assert_false(o.publish[2].udp);
}

static void publish__refuses_nonsense(void **state)
{
    static const char *const bad[] = {
        "",         "22",        ":22",   "22:",          "0:22",       "22:0",
        "65536:22", "22:65536",  "a:22",  "22:22x",       "sctp:22:22", "1.2.3:22:22",
        "::1:2:3",  "22:22:22:", "-1:22", "1.2.3.4:5:6:7"};

    (void)state;
    assert_true(parses("user"));
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        if (publishes(bad[i]))
            fail_msg("taken: %s", bad[i]);
    for (unsigned i = 0; i < NET_PUBLISH_MAX; i++)
        assert_true(publishes("1:1"));
    assert_false(publishes("1:1"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(user__has_the_usual_addresses),
        cmocka_unit_test(user__takes_its_options),
        cmocka_unit_test(user__has_ports_of_its_own),
        cmocka_unit_test(adopt__takes_nothing_else),
        cmocka_unit_test(adopt__lets_no_queue_block),
        cmocka_unit_test(closing__is_not_for_ever),
        cmocka_unit_test(tap__takes_its_options),
        cmocka_unit_test(nonsense__is_refused),
        cmocka_unit_test(publish__is_taken_apart),
        cmocka_unit_test(publish__refuses_nonsense),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
