/* SPDX-License-Identifier: Apache-2.0 */
/* What the process of a user-mode network may do once it serves. */
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backend/net/helper.h"
#include "core/sandbox.h"

#define RESOLV_CONF "/etc/resolv.conf"

/* Besides sandbox_base_rules. The stack makes a socket for each connection of the guest's. */
static const struct sandbox_rule rules[] = {
    SANDBOX_ALLOW(SYS_socket, "the guest's TCP, UDP and ICMP over IPv4", SANDBOX_INT(0, AF_INET)),
    SANDBOX_ALLOW(SYS_socket, "the same over IPv6", SANDBOX_INT(0, AF_INET6)),
    SANDBOX_ALLOW(SYS_connect, "a connection the guest makes"),
    SANDBOX_ALLOW(SYS_bind, "the source of a datagram"),
    SANDBOX_ALLOW(SYS_accept, "a connection to a published port"),
    SANDBOX_ALLOW(SYS_accept4, "the same"),
    SANDBOX_ALLOW(SYS_sendto, "the guest's data"),
    SANDBOX_ALLOW(SYS_recvfrom, "data for the guest, the VM's messages"),
    SANDBOX_ALLOW(SYS_sendmsg, "frames to the VM"),
    SANDBOX_ALLOW(SYS_recvmsg, "errors of a UDP socket"),
    SANDBOX_ALLOW(SYS_shutdown, "one direction of a connection has ended"),
    SANDBOX_ALLOW(SYS_getsockname, "what address a socket got"),
    SANDBOX_ALLOW(SYS_getpeername, "is a connection still there?"),
    SANDBOX_ALLOW(SYS_setsockopt, "no delay, reuse of addresses, time to live"),
    SANDBOX_ALLOW(SYS_getsockopt, "how connecting went"),
    SANDBOX_ALLOW(SYS_ioctl, "sockets do not block", SANDBOX_INT(1, FIONBIO)),
    SANDBOX_ALLOW(SYS_ioctl, "size of the next datagram", SANDBOX_INT(1, FIONREAD)),
    SANDBOX_ALLOW(SYS_ioctl, "interface of a name server's address", SANDBOX_INT(1, SIOCGIFINDEX)),
    SANDBOX_ALLOW(SYS_openat,
                  RESOLV_CONF ", whenever it changed: Landlock lets nothing else through",
                  SANDBOX_WITHOUT(2, O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)),
    SANDBOX_ALLOW(SYS_newfstatat, "did " RESOLV_CONF " change?"),
    SANDBOX_ALLOW(SYS_lseek, "stdio, closing it"),
    SANDBOX_END,
};

/*
 * Where the name servers are listed. A file in /etc itself is let through as such; one elsewhere
 * that /etc only links to is replaced by a new one now and then, so its directory is.
 */
static int open_resolv_conf(void)
{
    char path[4096], *slash;

    if (!realpath(RESOLV_CONF, path))
        return -1;
    slash = strrchr(path, '/');
    if (strncmp(path, "/etc/", 5) && slash != path)
        *slash = '\0';
    return open(path, O_PATH | O_CLOEXEC);
}

int net_helper_confine(char *err, size_t err_size)
{
    struct sandbox_dir names = {.fd = open_resolv_conf()};
    struct sandbox_spec spec = {.name = "net",
                                .rules = {sandbox_base_rules, rules},
                                .dirs = &names,
                                .ndirs = names.fd >= 0,
                                .network = true};
    int r = host_confine(&spec, err, err_size);

    if (names.fd >= 0)
        close(names.fd);
    return r;
}
