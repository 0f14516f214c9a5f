/* SPDX-License-Identifier: Apache-2.0 */
/* What is said of a disk that the host cannot write to: a limit on the size of files stands for a
 * full file system. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "backend/block/block.h"
#include "base/log.h"
#include "test.h"

static unsigned lines;
static time_t later; /* added to the clock */

/* In the place of libc's. */
int clock_gettime(clockid_t clock, struct timespec *t);
int clock_gettime(clockid_t clock, struct timespec *t)
{
    (void)clock;
    *t = (struct timespec){.tv_sec = 1000 + later};
    return 0;
}

__attribute__((format(printf, 2, 0))) static void sink(enum log_level level, const char *fmt,
                                                       va_list ap)
{
    char text[300];

    (void)level;
    vsnprintf(text, sizeof(text), fmt, ap);
    assert_non_null(strstr(text, "cannot write"));
    lines++;
}

static void limit(rlim_t bytes)
{
    struct rlimit r = {bytes, RLIM_INFINITY};

    assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
}

static int put(struct blockdev *b, u64 off)
{
    static u8 data[512];
    struct host_iov v = {data, sizeof(data)};

    return b->ops->writev(b, &v, 1, off);
}

static void block__a_full_host_is_told_of_once_until_it_works_again(void **state)
{
    char path[] = "/tmp/block-errors-XXXXXX", err[200];
    int fd = mkstemp(path);
    struct block_spec spec;
    struct blockdev *b;

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    assert_int_equal(block_spec_parse(path, &spec, err, sizeof(err)), 0);
    b = block_open(&spec, err, sizeof(err));
    assert_non_null(b);
    signal(SIGXFSZ, SIG_IGN);
    log_set_sink(sink);

    limit(4096);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(put(b, 8192 + 512 * i), -ENOSPC);
        assert_int_equal(put(b, 0), 0);
        later += 60;
    }
    assert_int_equal(lines, 1);
    limit(RLIM_INFINITY);
    assert_int_equal(put(b, 8192), 0);
    limit(4096);
    assert_int_equal(put(b, 8192), -ENOSPC);
    assert_int_equal(lines, 2);
    /* Not as often as it comes and goes. */
    for (unsigned i = 0; i < 5; i++) {
        limit(RLIM_INFINITY);
        assert_int_equal(put(b, 8192), 0);
        limit(4096);
        assert_int_equal(put(b, 8192), -ENOSPC);
    }
    assert_int_equal(lines, 2);

    limit(RLIM_INFINITY);
    b->ops->close(b);
    close(fd);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(block__a_full_host_is_told_of_once_until_it_works_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
