/* SPDX-License-Identifier: Apache-2.0 */
/* Locks, events, threads and the event loop of the host layer. */
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/host.h"
#include "test.h"

#define MS 1000000ull

static struct host_mutex lock;
static unsigned counter;

static void count(void *opaque)
{
    for (unsigned i = 0; i < 20000; i++) {
        host_mutex_lock(&lock);
        (*(unsigned *)opaque)++;
        host_mutex_unlock(&lock);
    }
}

static void host__mutex_excludes(void **state)
{
    struct host_thread *t[4];

    (void)state;
    host_mutex_init(&lock);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(host_thread_create(&t[i], "count", count, &counter), 0);
    for (unsigned i = 0; i < 4; i++)
        host_thread_join(t[i]);
    assert_int_equal(counter, 80000);
}

static struct host_event ping, pong;

static void play(void *opaque)
{
    (void)opaque;
    for (unsigned i = 0; i < 2000; i++) {
        if (!host_event_wait(&ping, UINT64_MAX))
            return;
        host_event_set(&pong);
    }
}

static void host__event_wakes_its_waiter(void **state)
{
    struct host_thread *t;
    u64 before = host_monotonic_ns();

    (void)state;
    assert_false(host_event_wait(&pong, 5 * MS));
    assert_true(host_monotonic_ns() - before >= 5 * MS);
    assert_int_equal(host_thread_create(&t, "play", play, NULL), 0);
    for (unsigned i = 0; i < 2000; i++) {
        host_event_set(&ping);
        assert_true(host_event_wait(&pong, 10000 * MS));
    }
    host_thread_join(t);
    host_event_set(&ping);
    host_event_set(&ping);
    assert_true(host_event_wait(&ping, 0));
    assert_false(host_event_wait(&ping, 0));
}

static unsigned posts, fires, reads;
static int pipe_fd[2];

static void on_post(void *opaque)
{
    (void)opaque;
    posts++;
}

static void on_timer(void *opaque)
{
    (void)opaque;
    if (++fires < 3)
        host_loop_timer(host_monotonic_ns() + MS, on_timer, NULL);
    else
        host_loop_stop();
}

static void on_pipe(void *opaque, u32 events)
{
    char c;

    (void)opaque;
    assert_true(events & EPOLLIN);
    assert_int_equal(read(pipe_fd[0], &c, 1), 1);
    reads++;
}

static void host__loop_runs_posts_timers_and_descriptors(void **state)
{
    (void)state;
    assert_int_equal(pipe(pipe_fd), 0);
    assert_int_equal(write(pipe_fd[1], "abc", 3), 3);
    assert_int_equal(host_loop_add_fd(pipe_fd[0], EPOLLIN, on_pipe, NULL), 0);
    host_loop_post(on_post, NULL);
    host_loop_post(on_post, NULL);
    host_loop_timer(host_monotonic_ns() + 20 * MS, on_timer, NULL);
    assert_int_equal(host_loop_run(), 0);
    assert_int_equal(posts, 2);
    assert_int_equal(fires, 3);
    assert_int_equal(reads, 3);
    host_loop_del_fd(pipe_fd[0]);
    close(pipe_fd[0]);
    close(pipe_fd[1]);
}

static int null_fd;
static unsigned null_reads;

static void on_null(void *opaque, u32 events)
{
    (void)opaque;
    (void)events;
    if (++null_reads == 3) {
        host_loop_mod_fd(null_fd, 0);
        host_loop_timer(host_monotonic_ns() + 5 * MS, on_timer, NULL);
    }
}

/* epoll refuses what is always ready; the loop serves it all the same, and not when told not to. */
static void host__loop_serves_files_epoll_refuses(void **state)
{
    (void)state;
    fires = 2;
    null_fd = open("/dev/null", O_RDONLY);
    assert_int_equal(host_loop_add_fd(null_fd, EPOLLIN, on_null, NULL), 0);
    assert_int_equal(host_loop_run(), 0);
    assert_int_equal(null_reads, 3);
    host_loop_del_fd(null_fd);
    close(null_fd);
}

static unsigned served;

static void serve_and_stop(void *opaque, u32 events)
{
    (void)opaque;
    (void)events;
    served++;
    host_loop_stop();
}

static void serve_bh(void *opaque)
{
    (void)opaque;
    serve_and_stop(NULL, 0);
}

/* A machine that was saved and has ended does nothing that whoever goes on would do again. */
static void host__loop_stops_at_once(void **state)
{
    static struct host_bh bh[2];
    int fd[3];

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        fd[i] = eventfd(1, EFD_CLOEXEC);
        assert_int_equal(host_loop_add_fd(fd[i], EPOLLIN, serve_and_stop, NULL), 0);
    }
    assert_int_equal(host_loop_run(), 0);
    assert_int_equal(served, 1);
    for (unsigned i = 0; i < 3; i++) {
        host_loop_del_fd(fd[i]);
        close(fd[i]);
    }
    for (unsigned i = 0; i < 2; i++) {
        host_bh_init(&bh[i], serve_bh, NULL);
        host_bh_schedule(&bh[i]);
    }
    assert_int_equal(host_loop_run(), 0);
    assert_int_equal(served, 2);
    /* It is not forgotten. */
    assert_int_equal(host_loop_run(), 0);
    assert_int_equal(served, 3);
}

static void host__ram_is_zeroed_and_measured(void **state)
{
    struct host_ram r;

    (void)state;
    assert_int_equal(host_ram_alloc(&r, 8 << 20), 0);
    for (u64 i = 0; i < r.size; i += 4096)
        assert_int_equal(((u8 *)r.ptr)[i], 0);
    host_ram_free(&r);
    assert_true(host_total_memory() > 16 << 20);
    assert_true(host_tsc_khz() > 100000);
}

/* --- workers --- */

static struct {
    u32 calls, inside, most; /* atomic */
    u32 hold;                /* calls do not end while it is set; atomic */
} job;

static void do_job(void *opaque)
{
    u32 now = __atomic_add_fetch(&job.inside, 1, __ATOMIC_SEQ_CST);

    (void)opaque;
    if (now > __atomic_load_n(&job.most, __ATOMIC_SEQ_CST))
        __atomic_store_n(&job.most, now, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&job.calls, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&job.hold, __ATOMIC_SEQ_CST))
        host_yield();
    __atomic_sub_fetch(&job.inside, 1, __ATOMIC_SEQ_CST);
}

static void wait_for(u32 *what, u32 n)
{
    while (__atomic_load_n(what, __ATOMIC_SEQ_CST) < n)
        host_yield();
}

/* A kick or an event makes a call begin, also beside calls that do not end. */
static void host__workers_take_kicks_and_events(void **state)
{
    struct host_workers *w;
    u64 one = 1;

    (void)state;
    assert_int_equal(host_workers_create(&w, "test", 3, do_job, NULL), 0);
    for (u32 i = 0; i < 2000; i++) {
        u32 before = __atomic_load_n(&job.calls, __ATOMIC_SEQ_CST);

        if (i % 2)
            host_workers_kick(w);
        else
            assert_int_equal(write(host_workers_event(w), &one, sizeof(one)), sizeof(one));
        wait_for(&job.calls, before + 1);
    }
    /* What was kicked twice may still come. */
    job.hold = 1;
    for (u32 i = 1; i <= 3; i++) {
        host_workers_kick(w);
        wait_for(&job.inside, i);
    }
    /* All are busy: it is not forgotten. */
    job.calls = 0;
    assert_int_equal(write(host_workers_event(w), &one, sizeof(one)), sizeof(one));
    assert_int_equal(job.calls, 0);
    __atomic_store_n(&job.hold, 0, __ATOMIC_SEQ_CST);
    wait_for(&job.calls, 1);
    host_workers_destroy(w);
    assert_int_equal(job.inside, 0);
    assert_int_equal(job.most, 3);
}

static void host__workers_end_while_they_wait(void **state)
{
    struct host_workers *w;

    (void)state;
    for (unsigned i = 0; i < 50; i++) {
        assert_int_equal(host_workers_create(&w, "test", 4, do_job, NULL), 0);
        if (i % 2)
            host_workers_kick(w);
        host_workers_destroy(w);
    }
    assert_int_equal(job.inside, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(host__mutex_excludes),
        cmocka_unit_test(host__event_wakes_its_waiter),
        cmocka_unit_test(host__loop_runs_posts_timers_and_descriptors),
        cmocka_unit_test(host__loop_serves_files_epoll_refuses),
        cmocka_unit_test(host__loop_stops_at_once),
        cmocka_unit_test(host__ram_is_zeroed_and_measured),
        cmocka_unit_test(host__workers_take_kicks_and_events),
        cmocka_unit_test(host__workers_end_while_they_wait),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
