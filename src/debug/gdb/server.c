/* SPDX-License-Identifier: Apache-2.0 */
/* The socket of gdb's remote stub. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "core/listen.h"
#include "debug/gdb/gdb.h"
#include "debug/gdb/session.h"

union address {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_un un;
};

struct gdb_server {
    struct vm *vm;
    gdb_dump_fn *dump;
    enum gdb_arch arch;
    bool waiting; /* ,wait: our vm_pause is in force */
    int listener;
    /* The debugger: */
    int client; /* -1: none */
    struct gdb_session *session;
    bool closing;
    size_t in_pos, in_len;
    u8 in[4096];
    u8 *out; /* what the socket did not take yet */
    size_t out_pos, out_len, out_size;
};

/* --- the debugger's connection --------------------------------------------------------------- */

static void close_client(struct gdb_server *g)
{
    host_loop_del_fd(g->client);
    close(g->client);
    g->client = -1;
    gdb_session_close(g->session);
    g->session = NULL;
    free(g->out);
    g->out = NULL;
    g->out_pos = g->out_len = g->out_size = 0;
}

/* Sends what is held back. */
static void flush(struct gdb_server *g)
{
    while (g->out_pos < g->out_len) {
        ssize_t n = send(g->client, g->out + g->out_pos, g->out_len - g->out_pos,
                         MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            /* A connection that broke is seen by the loop. */
            if (errno != EAGAIN && errno != EWOULDBLOCK)
                g->closing = true;
            return;
        }
        g->out_pos += (size_t)n;
    }
    g->out_pos = g->out_len = 0;
}

static void on_send(void *opaque, const void *buf, size_t n)
{
    struct gdb_server *g = opaque;

    if (g->out_size - g->out_len < n) {
        u8 *more = realloc(g->out, g->out_len + n);

        if (!more) {
            g->closing = true;
            return;
        }
        g->out = more;
        g->out_size = g->out_len + n;
    }
    memcpy(g->out + g->out_len, buf, n);
    g->out_len += n;
    flush(g);
    if (g->out_len)
        host_loop_mod_fd(g->client, EPOLLOUT);
}

static void on_done(void *opaque)
{
    struct gdb_server *g = opaque;

    g->closing = true;
}

/* Requests wait while an answer does: what is held back is bounded by one of them. */
static void work(struct gdb_server *g)
{
    while (!g->closing && !g->out_len && g->in_pos < g->in_len)
        gdb_session_input(g->session, g->in + g->in_pos++, 1);
    if (!g->closing)
        host_loop_mod_fd(g->client, g->out_len ? EPOLLOUT : EPOLLIN);
}

static void on_client(void *opaque, u32 events)
{
    struct gdb_server *g = opaque;

    if (events & EPOLLOUT)
        flush(g);
    if (!g->out_len && g->in_pos == g->in_len && (events & (EPOLLIN | EPOLLHUP | EPOLLERR))) {
        ssize_t n = recv(g->client, g->in, sizeof(g->in), MSG_DONTWAIT);

        g->in_pos = g->in_len = 0;
        if (n > 0)
            g->in_len = (size_t)n;
        else if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
            g->closing = true;
    } else if (events & (EPOLLHUP | EPOLLERR)) {
        g->closing = true;
    }
    work(g);
    if (g->closing)
        close_client(g);
}

static int start_session(struct gdb_server *g, char *err, size_t err_size)
{
    struct gdb_session_config c = {.vm = g->vm,
                                   .arch = g->arch,
                                   .send = on_send,
                                   .done = on_done,
                                   .opaque = g,
                                   .dump = g->dump};
    int r = host_loop_add_fd(g->client, EPOLLIN, on_client, g);

    if (r) {
        snprintf(err, err_size, "%s", strerror(-r));
        return r;
    }
    g->session = gdb_session_open(&c, err, err_size);
    if (!g->session) {
        host_loop_del_fd(g->client);
        return -EIO;
    }
    return 0;
}

static void on_connect(void *opaque, u32 events)
{
    struct gdb_server *g = opaque;
    int fd = accept4(g->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    char err[160];

    (void)events;
    if (fd < 0)
        return;
    if (g->client >= 0) {
        log_warn("gdb: a second debugger was turned away");
        close(fd);
        return;
    }
    g->client = fd;
    g->closing = false;
    g->in_pos = g->in_len = 0;
    if (start_session(g, err, sizeof(err))) {
        log_error("gdb: %s", err);
        close(fd);
        g->client = -1;
        return;
    }
    if (g->waiting)
        vm_resume(g->vm); /* the session's own pause is in force now */
    g->waiting = false;
}

/* --- opening ---------------------------------------------------------------------------------- */

/* Cuts an option off the end of spec. */
static bool take_option(char *spec, const char *option)
{
    size_t n = strlen(spec), k = strlen(option);

    if (n < k || strcmp(spec + n - k, option) != 0)
        return false;
    spec[n - k] = 0;
    return true;
}

static bool parse_port(const char *text, u16 *port)
{
    char *end;
    unsigned long v = strtoul(text, &end, 10);

    if (*text < '0' || *text > '9' || *end || v > 65535)
        return false;
    *port = (u16)v;
    return true;
}

/* [ADDRESS:]PORT; an IPv6 address is in brackets. */
static bool parse_inet(char *spec, union address *a, socklen_t *len)
{
    char *colon = strrchr(spec, ':'), *host = spec;
    u16 port;

    if (!parse_port(colon ? colon + 1 : spec, &port))
        return false;
    memset(a, 0, sizeof(*a));
    if (!colon || colon == spec) {
        host = NULL;
    } else {
        *colon = 0;
        if (*host == '[' && colon[-1] == ']') {
            colon[-1] = 0;
            a->in6.sin6_family = AF_INET6;
            a->in6.sin6_port = htons(port);
            *len = sizeof(a->in6);
            return inet_pton(AF_INET6, host + 1, &a->in6.sin6_addr) == 1;
        }
    }
    a->in.sin_family = AF_INET;
    a->in.sin_port = htons(port);
    *len = sizeof(a->in);
    return inet_pton(AF_INET, host && strcmp(host, "localhost") != 0 ? host : "127.0.0.1",
                     &a->in.sin_addr) == 1;
}

/* A listening socket, or -errno with one line in err. */
static int listen_inet(const union address *a, socklen_t len, char *err, size_t err_size)
{
    int fd = socket(a->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1, r;

    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        /* Packets are small and each waits for its answer. Connections inherit it. */
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        if (!bind(fd, &a->any, len) && !listen(fd, 1))
            return fd;
    }
    r = -errno;
    snprintf(err, err_size, "cannot listen: %s", strerror(-r));
    if (fd >= 0)
        close(fd);
    return r;
}

void gdb_server_announce(const struct gdb_server *g)
{
    const char *held = g->waiting ? "; the guest waits for a debugger" : "";
    union address a;
    socklen_t len = sizeof(a);
    char text[INET6_ADDRSTRLEN];
    u16 port;

    if (getsockname(g->listener, &a.any, &len))
        return;
    if (a.any.sa_family == AF_UNIX) {
        log_info("gdb: listening on unix:%s%s", a.un.sun_path, held);
        return;
    }
    if (a.any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &a.in6.sin6_addr, text, sizeof(text));
        port = ntohs(a.in6.sin6_port);
        log_info("gdb: listening on [%s]:%u%s", text, port, held);
    } else {
        inet_ntop(AF_INET, &a.in.sin_addr, text, sizeof(text));
        port = ntohs(a.in.sin_port);
        log_info("gdb: listening on %s:%u%s", text, port, held);
    }
    if (strncmp(text, "127.", 4) != 0 && strcmp(text, "::1") != 0)
        log_warn("gdb: whoever reaches %s port %u controls the virtual machine", text, port);
}

static int set_up(struct gdb_server *g, char *spec, char *err, size_t err_size)
{
    const char *path;
    union address a;
    socklen_t len;
    bool wait = false;
    int r;

    for (;;) {
        if (take_option(spec, ",wait"))
            wait = true;
        else if (take_option(spec, ",arch=i386"))
            g->arch = GDB_I386;
        else if (take_option(spec, ",arch=x86-64"))
            g->arch = GDB_X86_64;
        else
            break;
    }
    path = strncmp(spec, "unix:", 5) ? NULL : spec + 5;
    if (path ? !*path : !parse_inet(spec, &a, &len)) {
        snprintf(err, err_size,
                 "it is [ADDRESS:]PORT or unix:PATH, and ,wait or ,arch=i386 after it");
        return -EINVAL;
    }
    /* Who may open the file may debug: its owner only. */
    g->listener =
        path ? host_listen(path, true, 1, err, err_size) : listen_inet(&a, len, err, err_size);
    if (g->listener < 0)
        return g->listener;
    r = host_loop_add_fd(g->listener, EPOLLIN, on_connect, g);
    if (r) {
        snprintf(err, err_size, "cannot listen: %s", strerror(-r));
        return r;
    }
    if (wait)
        vm_pause(g->vm);
    g->waiting = wait;
    return 0;
}

struct gdb_server *gdb_server_open(struct vm *vm, const char *spec, gdb_dump_fn *dump, char *err,
                                   size_t err_size)
{
    struct gdb_server *g = calloc(1, sizeof(*g));
    char *copy = strdup(spec), why[300] = "out of memory";
    bool good = false;

    if (g && copy) {
        g->vm = vm;
        g->dump = dump;
        g->listener = g->client = -1;
        good = !set_up(g, copy, why, sizeof(why));
    }
    free(copy);
    if (!good) {
        snprintf(err, err_size, "--gdb %s: %s", spec, why);
        gdb_server_close(g);
        return NULL;
    }
    return g;
}

void gdb_server_vm_ended(struct gdb_server *g, int status)
{
    if (g && g->session)
        gdb_session_vm_ended(g->session, status);
}

void gdb_server_close(struct gdb_server *g)
{
    if (!g)
        return;
    if (g->client >= 0)
        close_client(g);
    if (g->listener >= 0) {
        host_loop_del_fd(g->listener);
        close(g->listener);
    }
    free(g);
}
