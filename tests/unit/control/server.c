/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket with clients of all manners; server and loop are the real ones, the test is a
 * thread beside them. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/server.h"
#include "core/host.h"
#include "proto/control.h"
#include "test.h"

#define LIMIT_MS 10000

static struct sockaddr_un where = {.sun_family = AF_UNIX};
static socklen_t where_len;
static struct control_server *server;
static struct host_thread *loop;
static unsigned pings;

static int ping(void *opaque, const struct control_call *call)
{
    (void)opaque;
    json_object_set_new(call->reply, "n", json_integer(++pings));
    return 0;
}

static int big(void *opaque, const struct control_call *call)
{
    char text[60000];

    (void)opaque;
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    json_object_set_new(call->reply, "text", json_string(text));
    return 0;
}

/* Keeps the second descriptor and says what it can of the others. */
static int kept[4];
static unsigned nkept;

static void close_kept(unsigned n)
{
    assert_int_equal(nkept, n);
    while (nkept)
        assert_int_equal(close(kept[--nkept]), 0);
}

static int files(void *opaque, const struct control_call *call)
{
    char text[CONTROL_FDS_MAX + 1] = "";

    (void)opaque;
    for (unsigned i = 0; i < call->fds->n; i++) {
        assert_int_equal(pread(call->fds->fd[i], text + i, 1, 0), 1);
        if (i == 1) {
            kept[nkept++ % ARRAY_SIZE(kept)] = call->fds->fd[i];
            call->fds->fd[i] = -1;
        }
    }
    json_object_set_new(call->reply, "text", json_string(text));
    return 0;
}

static const struct control_command commands[] = {
    {"files", files, NULL}, {"ping", ping, NULL}, {"big", big, NULL}, {NULL, NULL, NULL}};

static void run_loop(void *arg)
{
    (void)arg;
    host_loop_run();
}

static int setup(void **state)
{
    char err[200];
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

    (void)state;
    /* A name of no file. */
    snprintf(where.sun_path + 1, sizeof(where.sun_path) - 1, "trivisor-test-%d", (int)getpid());
    where_len =
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(where.sun_path + 1));
    if (fd < 0 || bind(fd, (struct sockaddr *)&where, where_len) || listen(fd, 64))
        return -1;
    pings = 0;
    server = control_server_open(fd, commands, NULL, err, sizeof(err));
    return server ? host_thread_create(&loop, "loop", run_loop, NULL) : -1;
}

static int teardown(void **state)
{
    (void)state;
    host_loop_stop();
    host_thread_join(loop);
    control_server_close(server);
    return 0;
}

static int join(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&where, where_len), 0);
    return fd;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* The next byte, or -1: the connection is closed. */
static int next(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    u8 c;

    assert_int_equal(poll(&p, 1, LIMIT_MS), 1);
    return recv(fd, &c, 1, 0) == 1 ? c : -1;
}

static void hear(int fd, const char *line)
{
    for (; *line; line++)
        assert_int_equal(next(fd), *line);
    assert_int_equal(next(fd), '\n');
}

static void in_order(void **state)
{
    int a = join(), b = join();

    (void)state;
    say(a, "{\"id\":1,\"command\":\"ping\"}\n{\"id\":2,\"command\":\"ping\"}\nnonsense\n"
           "{\"id\":3,\"comm");
    hear(a, "{\"id\":1,\"ok\":true,\"n\":1}");
    hear(a, "{\"id\":2,\"ok\":true,\"n\":2}");
    hear(a, "{\"ok\":false,\"error\":\"this is not JSON\"}");
    say(b, "{\"command\":\"ping\"}\n");
    hear(b, "{\"ok\":true,\"n\":3}");
    say(a, "and\":\"ping\"}\n");
    hear(a, "{\"id\":3,\"ok\":true,\"n\":4}");
    close(a);
    close(b);
}

/* It has said all it will, and gets what it asked for. */
static void half_closed(void **state)
{
    int fd = join();

    (void)state;
    say(fd, "{\"command\":\"ping\"}\n{\"command\":\"ping\"}\nhalf a requ");
    shutdown(fd, SHUT_WR);
    hear(fd, "{\"ok\":true,\"n\":1}");
    hear(fd, "{\"ok\":true,\"n\":2}");
    assert_int_equal(next(fd), -1);
    close(fd);
}

static void too_long(void **state)
{
    char text[CONTROL_REQUEST_MAX + 1];
    int fd = join();

    (void)state;
    memset(text, ' ', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    say(fd, text);
    hear(fd, "{\"ok\":false,\"error\":\"the request is too long\"}");
    assert_int_equal(next(fd), -1);
    close(fd);
}

/* Those who do not read what they ask for are not answered further, and keep nobody waiting. */
static void slow_readers(void **state)
{
    int fd[CONTROL_CLIENTS_MAX - 1], good;
    unsigned n = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(fd); i++) {
        fd[i] = join();
        while (send(fd[i], "{\"command\":\"big\"}\n", 18, MSG_DONTWAIT | MSG_NOSIGNAL) == 18)
            n++;
        assert_int_equal(errno, EAGAIN);
    }
    assert_true(n > ARRAY_SIZE(fd));
    good = join();
    for (unsigned i = 0; i < 100; i++) {
        say(good, "{\"command\":\"ping\"}\n");
        while (next(good) != '\n')
            continue;
    }
    assert_int_equal(pings, 100);
    /* They get all of it when they read. */
    assert_int_equal(next(fd[0]), '{');
    while (next(fd[0]) != '\n')
        continue;
    assert_int_equal(next(fd[0]), '{');
    for (size_t i = 0; i < ARRAY_SIZE(fd); i++)
        close(fd[i]);
    close(good);
}

/* Clients that say nothing do not keep out one that does. */
static void silent(void **state)
{
    int fd[3 * CONTROL_CLIENTS_MAX], good = join();

    (void)state;
    say(good, "{\"command\":\"ping\"}\n");
    hear(good, "{\"ok\":true,\"n\":1}");
    for (size_t i = 0; i < ARRAY_SIZE(fd); i++) {
        /* No more than one waits to be accepted: several would be newer than good's last word. */
        fd[i] = join();
        say(good, "{\"command\":\"ping\"}\n");
        while (next(good) != '\n')
            continue;
    }
    assert_int_equal(next(fd[0]), -1); /* dropped */
    for (size_t i = 0; i < ARRAY_SIZE(fd); i++)
        close(fd[i]);
    good = (close(good), join());
    say(good, "{\"command\":\"ping\"}\n");
    assert_int_equal(next(good), '{');
    close(good);
}

/* They come and go in the middle of everything. */
static void rude(void **state)
{
    int fd;

    (void)state;
    for (unsigned i = 0; i < 500; i++) {
        fd = join();
        if (i % 3)
            say(fd, i % 2 ? "{\"command\":\"big\"}\n{\"command\":\"big\"}\n" : "{\"comm");
        close(fd);
    }
    fd = join();
    say(fd, "{\"command\":\"ping\"}\n");
    hear(fd, "{\"ok\":true,\"n\":1}");
    close(fd);
}

/* One message with n descriptors of files that hold a letter each. */
static void pass(int fd, const char *text, unsigned n)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(40 * sizeof(int))];
    } control = {.bytes = {0}};
    struct iovec iov = {(char *)(uintptr_t)text, strlen(text)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = CMSG_SPACE(n * sizeof(int))};
    struct cmsghdr *h = CMSG_FIRSTHDR(&msg);
    int fds[40];

    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(n * sizeof(int));
    for (unsigned i = 0; i < n; i++) {
        char c = (char)('a' + i);

        fds[i] = memfd_create("file", 0);
        assert_int_equal(write(fds[i], &c, 1), 1);
    }
    memcpy(CMSG_DATA(h), fds, n * sizeof(int));
    assert_int_equal(sendmsg(fd, &msg, 0), iov.iov_len);
    for (unsigned i = 0; i < n; i++)
        close(fds[i]);
}

static unsigned open_files(void)
{
    unsigned n = 0;

    for (int i = 0; i < 512; i++)
        n += fcntl(i, F_GETFD) >= 0;
    return n;
}

static void descriptors(void **state)
{
    int fd = join();
    unsigned before;

    (void)state;
    say(fd, "{\"command\":\"ping\"}\n"); /* it is served */
    assert_int_equal(next(fd), '{');
    while (next(fd) != '\n')
        ;
    before = open_files();
    pass(fd, "{\"command\":\"files\"}\n", 3);
    hear(fd, "{\"ok\":true,\"text\":\"abc\"}");
    assert_int_equal(open_files(), before + 1);
    close_kept(1);
    /* Of one request and no other, in pieces too; too many are lost. */
    say(fd, "{\"command\":\"files\"}\n");
    hear(fd, "{\"ok\":true,\"text\":\"\"}");
    pass(fd, "{\"comm", 2);
    pass(fd, "and\":\"files\"}\n", 40);
    hear(fd, "{\"ok\":true,\"text\":\"ababcdefghijklmnopqrstuvwxyz{|}~\"}");
    close_kept(1);
    assert_int_equal(open_files(), before);
    /* The requests before it, which arrive with it, have none; each has its own. */
    say(fd, "{\"command\":\"big\"}\n{\"command\":\"files\"}\n");
    pass(fd, "{\"command\":\"files\"}\n", 4);
    say(fd, "{\"command\":\"files\"}\n");
    pass(fd, "{\"command\":\"files\"}\n", 2);
    while (next(fd) != '\n')
        ;
    hear(fd, "{\"ok\":true,\"text\":\"\"}");
    hear(fd, "{\"ok\":true,\"text\":\"abcd\"}");
    hear(fd, "{\"ok\":true,\"text\":\"\"}");
    hear(fd, "{\"ok\":true,\"text\":\"ab\"}");
    close_kept(2);
    assert_int_equal(open_files(), before);
    /* What belongs to no request goes with its connection. */
    pass(fd, "x", 5);
    close(fd);
    fd = join();
    say(fd, "{\"command\":\"files\"}\n");
    hear(fd, "{\"ok\":true,\"text\":\"\"}");
    assert_int_equal(open_files(), before);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(half_closed, setup, teardown),
        cmocka_unit_test_setup_teardown(too_long, setup, teardown),
        cmocka_unit_test_setup_teardown(slow_readers, setup, teardown),
        cmocka_unit_test_setup_teardown(silent, setup, teardown),
        cmocka_unit_test_setup_teardown(rude, setup, teardown),
        cmocka_unit_test_setup_teardown(descriptors, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
