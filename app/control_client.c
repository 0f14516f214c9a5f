/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "control_client.h"
#include "core/host.h"
#include "host/rundir.h"
#include "proto/control.h"

#define NS_PER_MS 1000000u

const char *control_text(const json_t *value, char *out, size_t size)
{
    const char *s = json_is_string(value) ? json_string_value(value) : "-";
    size_t n = 0;

    for (; *s && n + 1 < size; s++)
        out[n++] = *s < ' ' || *s > '~' ? '?' : *s;
    out[n] = 0;
    return out;
}

void control_print_json(const json_t *j)
{
    json_dumpf(j, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII | JSON_ENCODE_ANY);
    putchar('\n');
}

/* --- the process --- */

struct wanted {
    const char *name;
    pid_t pid;
};

static void note(void *opaque, const char *name, pid_t pid)
{
    struct wanted *w = opaque;

    if (!strcmp(name, w->name))
        w->pid = pid;
}

/* Its process id; 0: no such machine runs; or -errno with one line in err. */
static pid_t find(const char *name, char *err, size_t err_size)
{
    struct wanted w = {.name = name};
    int dir = rundir_open(false, err, err_size), r;

    if (dir == -ENOENT)
        return 0;
    if (dir < 0)
        return dir;
    r = rundir_list(dir, note, &w);
    close(dir);
    if (r)
        snprintf(err, err_size, "cannot list the running machines: %s", strerror(-r));
    return r ? r : w.pid;
}

static int not_running(const char *name, char *err, size_t err_size)
{
    snprintf(err, err_size, "no machine '%.64s' runs; trivisor ps lists those that do", name);
    return -ENOENT;
}

int control_process(const char *name, char *err, size_t err_size)
{
    pid_t pid = find(name, err, err_size);
    int fd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1, r = -errno;

    if (pid < 0)
        return pid;
    if (pid && fd < 0 && r != -ESRCH) {
        snprintf(err, err_size, "cannot watch process %d: %s", (int)pid, strerror(-r));
        return r;
    }
    /* If it is still the machine's, the descriptor is of the machine's process: by then it might
     * have been somebody else's number. */
    if (fd >= 0 && find(name, err, err_size) == pid)
        return fd;
    if (fd >= 0)
        close(fd);
    return not_running(name, err, err_size);
}

bool control_ended(int process, u64 timeout_ms)
{
    struct pollfd p = {.fd = process, .events = POLLIN};
    u64 end = host_monotonic_ns() + timeout_ms * NS_PER_MS;

    for (;;) {
        u64 now = host_monotonic_ns();
        int left = now < end ? (int)((end - now) / NS_PER_MS) + 1 : 0;
        int n = poll(&p, 1, left);

        if (n > 0)
            return true;
        if (!left)
            return false;
    }
}

/* --- a request --- */

static int connect_to(const char *name, char *err, size_t err_size)
{
    int dir = rundir_open(false, err, err_size), fd;

    if (dir == -ENOENT)
        return not_running(name, err, err_size);
    if (dir < 0)
        return dir;
    fd = strlen(name) > RUNDIR_NAME_MAX || strchr(name, '/')
             ? -ENOENT
             : rundir_connect(dir, name, RUNDIR_CONTROL);
    close(dir);
    if (fd == -ENOENT || fd == -ECONNREFUSED)
        return not_running(name, err, err_size);
    if (fd == -EAGAIN)
        snprintf(err, err_size, "the machine '%s' does not answer", name);
    else if (fd < 0)
        snprintf(err, err_size, "cannot reach the machine '%s': %s", name, strerror(-fd));
    return fd;
}

/* Reads a line into buf, without its line feed. Its length, or -errno. */
static ssize_t read_line(int fd, char *buf, size_t size, u64 end)
{
    size_t len = 0;

    while (len < size) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        u64 now = host_monotonic_ns();
        char *feed;
        ssize_t n;

        if (now >= end)
            return -ETIMEDOUT;
        if (poll(&p, 1, (int)((end - now) / NS_PER_MS) + 1) <= 0)
            continue;
        n = recv(fd, buf + len, size - len, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (n <= 0)
            return n ? -errno : -EPIPE;
        feed = memchr(buf + len, '\n', (size_t)n);
        if (feed)
            return feed - buf;
        len += (size_t)n;
    }
    return -EMSGSIZE;
}

/* The reply, when it says that the command was carried out. */
static json_t *judge(const char *name, const char *line, size_t n, char *err, size_t err_size)
{
    json_error_t error;
    json_t *reply = json_loadb(line, n, JSON_REJECT_DUPLICATES, &error), *ok;
    char text[400];

    ok = json_object_get(reply, "ok");
    if (json_is_true(ok))
        return reply;
    if (json_is_false(ok))
        snprintf(err, err_size, "'%s': %s", name,
                 control_text(json_object_get(reply, "error"), text, sizeof(text)));
    else
        snprintf(err, err_size, "the machine '%s' answers what is no reply", name);
    json_decref(reply);
    return NULL;
}

static bool send_request(int fd, const char *request, const int *fds, unsigned nfds)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(CONTROL_FDS_MAX * sizeof(int))];
    } control = {.bytes = {0}};
    struct iovec iov[2] = {{(char *)(uintptr_t)request, strlen(request)}, {(char[]){'\n'}, 1}};
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};

    if (nfds) {
        struct cmsghdr *h;

        m.msg_control = &control;
        m.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
        h = CMSG_FIRSTHDR(&m);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(nfds * sizeof(int));
        memcpy(CMSG_DATA(h), fds, nfds * sizeof(int));
    }
    return sendmsg(fd, &m, MSG_NOSIGNAL) == (ssize_t)iov[0].iov_len + 1;
}

json_t *control_request(const char *name, const char *request, const int *fds, unsigned nfds,
                        unsigned timeout_ms, char *err, size_t err_size)
{
    u64 end = host_monotonic_ns() + (u64)timeout_ms * NS_PER_MS;
    char *buf = malloc(CONTROL_REPLY_MAX);
    int fd = -EMSGSIZE;
    json_t *reply = NULL;
    ssize_t n;

    /* So that it fits the socket, which is new. */
    if (!buf)
        snprintf(err, err_size, "out of memory");
    else if (strlen(request) >= CONTROL_REQUEST_MAX || nfds > CONTROL_FDS_MAX)
        snprintf(err, err_size, "the request is too long");
    else
        fd = connect_to(name, err, err_size);
    if (fd < 0) {
        free(buf);
        return NULL;
    }
    if (send_request(fd, request, fds, nfds))
        n = read_line(fd, buf, CONTROL_REPLY_MAX, end);
    else
        n = -errno;
    close(fd);
    if (n >= 0)
        reply = judge(name, buf, (size_t)n, err, err_size);
    else if (n == -ETIMEDOUT)
        snprintf(err, err_size, "the machine '%s' does not answer", name);
    else
        snprintf(err, err_size, "the machine '%s' has ended", name);
    free(buf);
    return reply;
}

json_t *control_ask(const char *name, const char *command, unsigned timeout_ms, char *err,
                    size_t err_size)
{
    char request[80];

    snprintf(request, sizeof(request), "{\"command\": \"%s\"}", command);
    return control_request(name, request, NULL, 0, timeout_ms, err, err_size);
}
