/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stream sockets of a guest (AF_VSOCK):
 *   vsock connect PORT [CID]  to a port of the host's (or of CID): standard input goes there, what
 *                             comes back to standard output, each until its end
 *   vsock listen PORT         the same with the first one who connects
 *   vsock echo PORT           gives everybody back what they send, for ever
 *   vsock send PORT MIB       sends so much to the host and waits for the end: "vsock send N MB/s"
 *   vsock hold PORT N         makes N connections and keeps them: "vsock hold N", the number made
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

static char buffer[65536];

static _Noreturn void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int new_socket(void)
{
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        fail("socket");
    return fd;
}

static int try_connect(uint32_t port, uint32_t cid)
{
    struct sockaddr_vm a = {.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port};
    int fd = new_socket();

    if (!connect(fd, (struct sockaddr *)&a, sizeof(a)))
        return fd;
    close(fd);
    return -1;
}

static int listen_at(uint32_t port)
{
    struct sockaddr_vm a = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port};
    int fd = new_socket();

    if (bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 64))
        fail("listen");
    printf("vsock ready\n");
    fflush(stdout);
    return fd;
}

static int next(int listener)
{
    int fd = accept(listener, NULL, NULL);

    if (fd < 0)
        fail("accept");
    return fd;
}

static void put(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t done = write(fd, p, n);

        if (done < 0)
            fail("write");
        p += done;
        n -= (size_t)done;
    }
}

/* A piece from one to the other; 0: that was the end. */
static int move(int from, int to)
{
    ssize_t n = read(from, buffer, sizeof(buffer));

    if (n < 0)
        fail("read");
    put(to, buffer, (size_t)n);
    return n > 0;
}

static void pump(int fd)
{
    struct pollfd p[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = fd, .events = POLLIN}};

    while (p[0].fd >= 0 || p[1].fd >= 0) {
        if (poll(p, 2, -1) < 0)
            fail("poll");
        if (p[0].revents && !move(STDIN_FILENO, fd)) {
            shutdown(fd, SHUT_WR);
            p[0].fd = -1;
        }
        if (p[1].revents && !move(fd, STDOUT_FILENO))
            p[1].fd = -1;
    }
}

static _Noreturn void echo(int listener)
{
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int fd = next(listener);

        if (fork() == 0) {
            while (move(fd, fd))
                ;
            _exit(0);
        }
        close(fd);
    }
}

static void send_all(int fd, unsigned mib)
{
    struct timespec a, b;
    double seconds;

    clock_gettime(CLOCK_MONOTONIC, &a);
    for (unsigned i = 0; i < mib * 16; i++)
        put(fd, buffer, sizeof(buffer));
    shutdown(fd, SHUT_WR);
    while (read(fd, buffer, sizeof(buffer)) > 0)
        ;
    clock_gettime(CLOCK_MONOTONIC, &b);
    seconds = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
    printf("vsock send %.0f MB/s\n", mib * 1.048576 / seconds);
}

static void hold(uint32_t port, unsigned n)
{
    unsigned made = 0;

    while (made < n && try_connect(port, VMADDR_CID_HOST) >= 0)
        made++;
    printf("vsock hold %u\n", made);
    fflush(stdout);
    pause();
}

int main(int argc, char **argv)
{
    uint32_t port = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 0, cid = VMADDR_CID_HOST;
    const char *what = argc > 2 ? argv[1] : "";
    int fd = -1;

    if (!strcmp(what, "listen") || !strcmp(what, "echo")) {
        fd = listen_at(port);
        if (!strcmp(what, "echo"))
            echo(fd);
        pump(next(fd));
        return 0;
    }
    if (!strcmp(what, "hold") && argc == 4) {
        hold(port, (unsigned)atoi(argv[3]));
        return 0;
    }
    if (!strcmp(what, "connect") && argc == 4)
        cid = (uint32_t)strtoul(argv[3], NULL, 10);
    if (!strcmp(what, "connect") || (!strcmp(what, "send") && argc == 4)) {
        fd = try_connect(port, cid);
        if (fd < 0)
            fail("connect");
    }
    if (!strcmp(what, "connect"))
        pump(fd);
    else if (fd >= 0)
        send_all(fd, (unsigned)atoi(argv[3]));
    else
        fprintf(stderr, "vsock connect PORT [CID] | listen PORT | echo PORT | send PORT MIB | hold "
                        "PORT N\n");
    return fd < 0;
}
