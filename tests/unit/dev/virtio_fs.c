/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file system device between a driver and a server that the test plays: requests arrive whole
 * and checked, replies find their chains in any order, nothing is written after a reset. The
 * device's receiving thread is a coroutine that stops when it waits for the server.
 */
#include "dev/virtio/fs.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include "dev/pci/pci.h"
#include "dev/virtio_driver.h"
#include "state_file.h"
#include "test.h"

#define SLOT 5
#define INFLIGHT 64 /* the device's */

static struct {
    struct vd_board *b;
    struct vdriver drv;
    struct sharedev share;
    bool shut, closed;
    /* What the device sent: the last request, and how many. */
    u8 sent[8192] __attribute__((aligned(8)));
    size_t sent_len;
    unsigned nsent;
    u64 first; /* the first one's number */
    int send_error;
    bool busy; /* nothing can be sent without blocking */
    /* What the server has to say. */
    u8 reply[8192];
    size_t reply_len, reply_at;
    /* The receiving thread */
    ucontext_t test, thread;
    void (*fn)(void *);
    void *arg;
    bool started, inside, finished;
    u8 stack[256 * 1024] __attribute__((aligned(64)));
} t;

/* --- the receiving thread ------------------------------------------------------------------------
 */

static void thread_main(void)
{
    t.fn(t.arg);
    t.finished = true;
}

static void thread_go(void)
{
    if (t.finished)
        return;
    t.inside = true;
    swapcontext(&t.test, &t.thread);
    t.inside = false;
}

static void thread_create(void (*fn)(void *), void *arg)
{
    t.fn = fn;
    t.arg = arg;
    assert_int_equal(getcontext(&t.thread), 0);
    t.thread.uc_stack.ss_sp = t.stack;
    t.thread.uc_stack.ss_size = sizeof(t.stack);
    t.thread.uc_link = &t.test;
    makecontext(&t.thread, thread_main, 0);
    thread_go();
}

/* --- the server ----------------------------------------------------------------------------------
 */

static int fake_send(struct sharedev *s, const struct host_iov *iov, unsigned n)
{
    (void)s;
    if (t.shut || t.send_error)
        return -ENOTCONN;
    t.sent_len = 0;
    for (unsigned i = 0; i < n; i++) {
        assert_true(t.sent_len + iov[i].len <= sizeof(t.sent));
        memcpy(t.sent + t.sent_len, iov[i].base, iov[i].len);
        t.sent_len += iov[i].len;
    }
    if (!t.nsent++)
        t.first = ((struct fuse_in_header *)(void *)t.sent)->unique;
    return 0;
}

static int fake_try_send(struct sharedev *s, const struct host_iov *iov, unsigned n)
{
    size_t len = 0;

    for (unsigned i = 0; i < n; i++)
        len += iov[i].len;
    assert_true(len <= SHAREDEV_SMALL);
    return t.busy ? -EAGAIN : fake_send(s, iov, n);
}

static int fake_receive(struct sharedev *s, const struct host_iov *iov, unsigned n)
{
    (void)s;
    for (unsigned i = 0; i < n; i++)
        for (size_t at = 0; at < iov[i].len;) {
            size_t piece = iov[i].len - at;

            while (t.reply_at == t.reply_len && !t.shut)
                swapcontext(&t.thread, &t.test);
            if (t.shut)
                return -ENOTCONN;
            if (piece > t.reply_len - t.reply_at)
                piece = t.reply_len - t.reply_at;
            memcpy((u8 *)iov[i].base + at, t.reply + t.reply_at, piece);
            t.reply_at += piece;
            at += piece;
        }
    return 0;
}

static void fake_shutdown(struct sharedev *s)
{
    bool first = !t.shut;

    (void)s;
    t.shut = true;
    if (first && t.started && !t.inside)
        thread_go();
}

static void fake_close(struct sharedev *s)
{
    (void)s;
    t.closed = true;
}

static const struct sharedev_ops ops = {.send = fake_send,
                                        .try_send = fake_try_send,
                                        .receive = fake_receive,
                                        .shutdown = fake_shutdown,
                                        .close = fake_close};

static const struct fuse_in_header *sent(void)
{
    return (const void *)t.sent;
}

/* Part of a reply: the device's thread takes it and waits for more. */
static void say(const void *data, size_t n)
{
    assert_true(n <= sizeof(t.reply));
    memcpy(t.reply, data, n);
    t.reply_len = n;
    t.reply_at = 0;
    thread_go();
}

static void answer(u64 unique, int error, const char *body)
{
    struct fuse_out_header h = {
        .len = (u32)(sizeof(h) + strlen(body)), .error = error, .unique = unique};
    u8 all[256];

    memcpy(all, &h, sizeof(h));
    memcpy(all + sizeof(h), body, strlen(body));
    say(all, h.len);
}

/* --- the driver ----------------------------------------------------------------------------------
 */

static int set_up(void **state)
{
    (void)state;
    memset(&t, 0, offsetof(__typeof__(t), stack));
    t.b = vd_board_new();
    fake_thread = thread_create;
    t.share = (struct sharedev){.ops = &ops, .tag = "/mnt/src"};
    assert_non_null(virtio_fs_create(&t.b->m->vm, t.b->host, PCI_DEVFN(SLOT, 0), "fs0", &t.share));
    t.started = true;
    vd_attach(&t.drv, t.b, PCI_DEVFN(SLOT, 0));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    vd_board_free(t.b);
    assert_true(t.finished && t.closed);
    return 0;
}

struct call {
    u64 out, in;
    u32 in_len;
    int id;
};

static void make_header(u64 at, u32 len, u32 opcode, u64 unique)
{
    struct fuse_in_header h = {.len = len, .opcode = opcode, .unique = unique, .nodeid = 7};

    memcpy(vd_ram(t.b, at), &h, sizeof(h));
}

/* A request with a body, in as many pieces as drivers make, room for a reply of in_len bytes. */
static struct call call(unsigned q, u32 opcode, u64 unique, const char *body, u32 in_len)
{
    u32 n = (u32)strlen(body);
    struct call c = {.out = vd_alloc(t.b, 256, 8), .in = vd_alloc(t.b, 256, 8), .in_len = in_len};
    struct vd_buf b[4] = {{c.out, sizeof(struct fuse_in_header)}};
    unsigned nout = 1, nin = 0;

    make_header(c.out, (u32)sizeof(struct fuse_in_header) + n, opcode, unique);
    memcpy(vd_ram(t.b, c.out + sizeof(struct fuse_in_header)), body, n);
    if (n)
        b[nout++] = (struct vd_buf){c.out + sizeof(struct fuse_in_header), n};
    if (in_len) {
        u32 first = in_len < 16 ? in_len : 16;

        b[nout + nin++] = (struct vd_buf){c.in, first};
        if (in_len > first)
            b[nout + nin++] = (struct vd_buf){c.in + first, in_len - first};
    }
    c.id = vd_add(&t.drv, q, b, nout, nin);
    assert_true(c.id >= 0);
    vd_kick(&t.drv, q);
    fake_settle();
    return c;
}

static void expect_reply(unsigned q, const struct call *c, u64 unique, int error, const char *body)
{
    struct fuse_out_header h;
    u32 len;

    assert_int_equal(vd_used(&t.drv, q, &len), c->id);
    assert_int_equal(len, sizeof(h) + strlen(body));
    memcpy(&h, vd_ram(t.b, c->in), sizeof(h));
    assert_int_equal(h.len, len);
    assert_int_equal(h.unique, unique);
    assert_int_equal(h.error, error);
    assert_memory_equal(vd_ram(t.b, c->in + sizeof(h)), body, strlen(body));
}

static void start(unsigned mode)
{
    vd_start(&t.drv, vd_mode(mode), 0, 512);
}

/* --- tests ---------------------------------------------------------------------------------------
 */

static void fs__says_its_tag_and_queues(void **state)
{
    char tag[37] = {0};

    (void)state;
    start(0);
    for (unsigned i = 0; i < 36; i++)
        tag[i] = (char)vd_dev_get(&t.drv, i, 1);
    assert_string_equal(tag, "/mnt/src");
    assert_int_equal(vd_dev_get(&t.drv, 36, 4), 1);
    assert_int_equal(t.drv.nqueues, 2);
}

static void fs__carries_requests_and_replies_in_every_mode(void **state)
{
    for (unsigned m = 0; m < VD_MODES; m++) {
        if (m) {
            tear_down(state);
            set_up(state);
        }
        start(m);
        for (unsigned i = 0; i < 200; i++) {
            struct call c;

            t.busy = i % 3 == 0;
            c = call(1, FUSE_LOOKUP, 1000 + i, "name", 64);
            assert_int_equal(t.nsent, i + 1);
            assert_int_equal(t.sent_len, sizeof(struct fuse_in_header) + 4);
            assert_int_equal(sent()->opcode, FUSE_LOOKUP);
            assert_int_equal(sent()->nodeid, 7);
            assert_memory_equal(t.sent + sizeof(struct fuse_in_header), "name", 4);
            answer(sent()->unique, 0, "the reply");
            expect_reply(1, &c, 1000 + i, 0, "the reply");
        }
    }
}

static void fs__replies_come_in_any_order(void **state)
{
    struct call c[8];
    u64 unique[8];

    (void)state;
    start(0);
    for (unsigned i = 0; i < 8; i++) {
        c[i] = call(1, FUSE_GETATTR, 5, "x", 64); /* all by the same number */
        unique[i] = sent()->unique;
        for (unsigned j = 0; j < i; j++)
            assert_int_not_equal(unique[i], unique[j]);
    }
    for (unsigned i = 8; i-- > 0;) {
        answer(unique[i], -(int)i, "");
        expect_reply(1, &c[i], 5, -(int)i, "");
    }
}

/* What is too big for a vCPU's thread is sent by another, and what comes after it too. */
static void fs__big_requests_are_sent_in_order(void **state)
{
    struct call big = {.out = vd_alloc(t.b, 8192, 8), .in = vd_alloc(t.b, 64, 8)}, small;
    struct vd_buf b[2] = {{big.out, SHAREDEV_SMALL + 1}, {big.in, 64}};
    u64 unique;

    (void)state;
    start(0);
    make_header(big.out, SHAREDEV_SMALL + 1, FUSE_WRITE, 1);
    big.id = vd_add(&t.drv, 1, b, 1, 1);
    vd_kick(&t.drv, 1);
    assert_int_equal(t.nsent, 0); /* the sender has not run */
    b[0] = (struct vd_buf){vd_alloc(t.b, 64, 8), 40};
    b[1] = (struct vd_buf){vd_alloc(t.b, 64, 8), 64};
    small = (struct call){.in = b[1].addr};
    make_header(b[0].addr, 40, FUSE_STATFS, 2);
    small.id = vd_add(&t.drv, 1, b, 1, 1);
    vd_kick(&t.drv, 1);
    assert_int_equal(t.nsent, 0);
    fake_settle();
    assert_int_equal(t.nsent, 2);
    unique = sent()->unique;
    assert_int_equal(sent()->opcode, FUSE_STATFS);
    answer(unique, 0, "s");
    expect_reply(1, &small, 2, 0, "s");
    answer(t.first, 0, "b");
    expect_reply(1, &big, 1, 0, "b");
}

static void fs__forgets_have_no_reply(void **state)
{
    struct call c;
    u32 len;

    (void)state;
    start(0);
    c = call(0, FUSE_FORGET, 9, "12345678", 0);
    assert_int_equal(t.nsent, 1);
    assert_int_equal(vd_used(&t.drv, 0, &len), c.id);
    assert_int_equal(len, 0);
    c = call(0, FUSE_INTERRUPT, 10, "12345678", 0);
    assert_int_equal(t.nsent, 1);
    assert_int_equal(vd_used(&t.drv, 0, &len), c.id);
    assert_int_equal(len, 0);
}

static void fs__requests_that_lie_are_answered_here(void **state)
{
    struct call c = {.out = 0};
    u32 len;

    (void)state;
    start(0);
    c = (struct call){.out = vd_alloc(t.b, 256, 8), .in = vd_alloc(t.b, 256, 8)};
    for (u32 said = 0; said < 200; said += 7) {
        struct vd_buf b[2] = {{c.out, 50}, {c.in, 64}};

        make_header(c.out, said, FUSE_LOOKUP, 3);
        c.id = vd_add(&t.drv, 1, b, 1, 1);
        vd_kick(&t.drv, 1);
        fake_settle();
        expect_reply(1, &c, 3, -EINVAL, "");
    }
    /* Not even a header; no room for an answer. */
    struct vd_buf b[2] = {{c.out, 39}, {c.in, 15}};

    c.id = vd_add(&t.drv, 1, b, 1, 1);
    vd_kick(&t.drv, 1);
    fake_settle();
    assert_int_equal(vd_used(&t.drv, 1, &len), c.id);
    assert_int_equal(len, 0);
    assert_int_equal(t.nsent, 0);
}

static void fs__replies_that_do_not_fit_are_errors(void **state)
{
    struct call a, b;

    (void)state;
    start(0);
    a = call(1, FUSE_READ, 3, "x", 20);
    u64 unique = sent()->unique;
    b = call(1, FUSE_READ, 4, "x", 64);
    answer(unique, 0, "12345");
    expect_reply(1, &a, 3, -EIO, "");
    answer(sent()->unique, 0, "fits"); /* the stream is where it should be */
    expect_reply(1, &b, 4, 0, "fits");
}

static void fs__as_many_requests_as_there_are_slots(void **state)
{
    struct call c[INFLIGHT + 10];
    u64 unique[INFLIGHT];
    struct call forget;

    (void)state;
    start(0);
    t.busy = true;
    for (unsigned i = 0; i < INFLIGHT + 10; i++) {
        c[i] = call(1, FUSE_READ, i, "x", 64);
        if (i < INFLIGHT)
            unique[i] = sent()->unique;
    }
    assert_int_equal(t.nsent, INFLIGHT);
    t.busy = false;
    forget = call(0, FUSE_FORGET, 9, "12345678", 0);
    answer(unique[3], 0, "a");
    fake_settle();
    /* The urgent queue comes first, and its slot is free again. */
    assert_int_equal(t.nsent, INFLIGHT + 2);
    expect_reply(1, &c[3], 3, 0, "a");
    assert_int_equal(vd_used(&t.drv, 0, NULL), forget.id);
}

static void fs__a_reset_does_not_wait_for_the_server(void **state)
{
    struct call c, d;
    u64 old;

    (void)state;
    start(0);
    c = call(1, FUSE_READ, 3, "x", 64);
    old = sent()->unique;
    assert_true(vd_reset(&t.drv));
    start(0);
    d = call(1, FUSE_READ, 3, "x", 64);
    assert_int_not_equal(sent()->unique, old);
    memset(vd_ram(t.b, c.in), 0x55, 64);
    answer(old, 0, "late");
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(*vd_ram(t.b, c.in + i), 0x55);
    assert_int_equal(vd_used(&t.drv, 1, NULL), -1);
    answer(sent()->unique, 0, "new");
    expect_reply(1, &d, 3, 0, "new");
}

static void fs__a_reset_waits_while_a_reply_is_written(void **state)
{
    struct fuse_out_header h = {.len = sizeof(h) + 4};
    struct call c;

    (void)state;
    start(0);
    c = call(1, FUSE_READ, 3, "x", 64);
    h.unique = sent()->unique;
    say(&h, sizeof(h));
    say("ab", 2);
    assert_false(vd_reset(&t.drv));
    assert_int_not_equal(vd_status(&t.drv), 0);
    say("cd", 2);
    assert_int_equal(vd_status(&t.drv), 0);
    memset(vd_ram(t.b, c.in), 0x55, 64);
    start(0);
    c = call(1, FUSE_READ, 4, "x", 64);
    answer(sent()->unique, 0, "ok");
    expect_reply(1, &c, 4, 0, "ok");
}

static void fs__the_servers_end_is_an_error_of_each_request(void **state)
{
    struct call c[3];
    u32 len;

    (void)state;
    start(0);
    for (unsigned i = 0; i < 3; i++)
        c[i] = call(1, FUSE_READ, i, "x", 64);
    fake_shutdown(&t.share);
    for (unsigned i = 0; i < 3; i++)
        expect_reply(1, &c[i], i, -ENOTCONN, "");
    c[0] = call(1, FUSE_LOOKUP, 77, "x", 64);
    expect_reply(1, &c[0], 77, -ENOTCONN, "");
    c[0] = call(0, FUSE_FORGET, 78, "12345678", 0);
    assert_int_equal(vd_used(&t.drv, 0, &len), c[0].id);
    assert_int_equal(t.nsent, 3);
    assert_true(vd_reset(&t.drv));
}

static void fs__the_servers_end_within_a_reply(void **state)
{
    struct fuse_out_header h = {.len = sizeof(h) + 4};
    struct call c;

    (void)state;
    start(0);
    c = call(1, FUSE_READ, 3, "x", 64);
    h.unique = sent()->unique;
    say(&h, sizeof(h));
    /* The two bytes are in the guest's memory: the engine hears of them. */
    t.b->m->watched_gpa = c.in + sizeof(h);
    say("ab", 2);
    fake_shutdown(&t.share);
    expect_reply(1, &c, 3, -ENOTCONN, "");
    assert_int_equal(t.b->m->watched, 1);
}

static void fs__sending_fails(void **state)
{
    struct call c;

    (void)state;
    start(0);
    t.send_error = -ENOTCONN;
    c = call(1, FUSE_READ, 3, "x", 64);
    expect_reply(1, &c, 3, -ENOTCONN, "");
}

/* A server that was taken over: it can fail the guest's requests, and nothing else. */
static void fs__replies_that_make_no_sense_end_the_server(void **state)
{
    static const struct {
        u64 unique_xor;
        u32 len;
    } bad[] = {{1, 16},
               {0x100, 16},
               {0xff, 16},
               {(u64)1 << 63, 16},
               {0, 15},
               {0, 0},
               {0, SHAREDEV_REPLY_MAX + 1},
               {0, UINT32_MAX}};

    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        struct fuse_out_header h = {.len = bad[i].len};
        struct call c;

        if (i) {
            tear_down(state);
            set_up(state);
        }
        start(0);
        c = call(1, FUSE_READ, 3, "x", 64);
        h.unique = sent()->unique ^ bad[i].unique_xor;
        say(&h, sizeof(h));
        assert_true(t.finished);
        expect_reply(1, &c, 3, -ENOTCONN, "");
    }
}

static void fs__a_reply_comes_once(void **state)
{
    struct call c;

    (void)state;
    start(0);
    c = call(1, FUSE_READ, 3, "x", 64);
    answer(sent()->unique, 0, "a");
    expect_reply(1, &c, 3, 0, "a");
    answer(sent()->unique, 0, "a");
    assert_true(t.finished);
}

static void fs__the_machine_ends_with_requests_in_flight(void **state)
{
    (void)state;
    start(0);
    for (unsigned i = 0; i < 5; i++)
        call(1, FUSE_READ, i, "x", 64);
}

/* Open files are the server's and cannot be saved; who has not begun has none. */
static void fs__is_saved_without_open_files(void **state)
{
    static u8 bytes[8192], changed[8192];
    struct device *dev = t.b->m->vm.devices;
    struct stream s;
    const char *why = NULL;

    (void)state;
    while (strcmp(dev->ops->name, "virtio-fs"))
        dev = dev->next;
    start(0);
    call(1, FUSE_LOOKUP, 1, "name", 64);
    stream_init(&s, bytes, sizeof(bytes));
    assert_int_equal(dev->ops->save(dev, &s, &why), -EBUSY);
    assert_string_equal(
        why, "the machine shares a directory (--share), whose open files cannot be saved");
    assert_true(vd_reset(&t.drv));
    vd_negotiate(&t.drv, vd_mode(0), 0);
    vd_setup_queue(&t.drv, 1, 512);
    assert_int_equal(dev->ops->save(dev, &s, &why), 0);
    assert_int_equal(state_load_device(t.b->m, "virtio-fs", bytes, s.pos), 0);
    vd_driver_ok(&t.drv);
    assert_int_equal(dev->ops->save(dev, &s, &why), -EBUSY);
    vd_setup_queue(&t.drv, 0, 128);
    call(1, FUSE_LOOKUP, 1, "name", 64);
    assert_int_equal(t.nsent, 2);
    /* A state with DRIVER_OK was never written. */
    for (size_t i = 0; i < s.pos; i++) {
        memcpy(changed, bytes, sizeof(changed));
        changed[i] |= VD_DRIVER_OK;
        if (!state_load_device(t.b->m, "virtio-fs", changed, s.pos)) {
            struct stream again;

            stream_init(&again, changed, sizeof(changed));
            assert_int_equal(dev->ops->save(dev, &again, &why), 0);
        }
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(fs__says_its_tag_and_queues),
        TEST(fs__carries_requests_and_replies_in_every_mode),
        TEST(fs__replies_come_in_any_order),
        TEST(fs__big_requests_are_sent_in_order),
        TEST(fs__forgets_have_no_reply),
        TEST(fs__requests_that_lie_are_answered_here),
        TEST(fs__replies_that_do_not_fit_are_errors),
        TEST(fs__as_many_requests_as_there_are_slots),
        TEST(fs__a_reset_does_not_wait_for_the_server),
        TEST(fs__a_reset_waits_while_a_reply_is_written),
        TEST(fs__the_servers_end_is_an_error_of_each_request),
        TEST(fs__the_servers_end_within_a_reply),
        TEST(fs__sending_fails),
        TEST(fs__replies_that_make_no_sense_end_the_server),
        TEST(fs__a_reply_comes_once),
        TEST(fs__the_machine_ends_with_requests_in_flight),
        TEST(fs__is_saved_without_open_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
