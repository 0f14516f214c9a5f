/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/rundir.h"
#include "test.h"

static char top[64], path[256], err[512], names[512];

static int setup(void **state)
{
    (void)state;
    strcpy(top, "/tmp/trivisor-rundir-XXXXXX");
    if (!mkdtemp(top))
        return -1;
    snprintf(path, sizeof(path), "%s/trivisor", top);
    return setenv("XDG_RUNTIME_DIR", top, 1);
}

static int teardown(void **state)
{
    char command[300];

    (void)state;
    snprintf(command, sizeof(command), "rm -r '%s'", top);
    return system(command);
}

static bool there(const char *name)
{
    char file[400];

    snprintf(file, sizeof(file), "%s/%s", path, name);
    return access(file, F_OK) == 0;
}

static void note_name(void *opaque, const char *name, pid_t pid)
{
    (void)opaque;
    snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s ", name);
    assert_true(pid > 1);
}

static const char *list(int dir)
{
    names[0] = 0;
    assert_int_equal(rundir_list(dir, note_name, NULL), 0);
    return names;
}

/* A process that holds a name until it is killed. */
static pid_t holder(const char *name)
{
    int ready[2];
    char c;
    pid_t pid;

    assert_int_equal(pipe(ready), 0);
    pid = fork();
    if (pid == 0) {
        int dir = rundir_open(true, err, sizeof(err));

        if (dir < 0 || rundir_claim(dir, name, err, sizeof(err)) ||
            rundir_listen(dir, name, RUNDIR_CONSOLE, err, sizeof(err)) < 0)
            _exit(1);
        if (write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &c, 1), 1);
    close(ready[0]);
    return pid;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void rundir__is_private(void **state)
{
    struct stat st;
    int dir = rundir_open(false, err, sizeof(err));

    (void)state;
    assert_int_equal(dir, -ENOENT);
    dir = rundir_open(true, err, sizeof(err));
    assert_true(dir >= 0);
    assert_int_equal(fstat(dir, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    close(dir);
    chmod(path, 0755);
    assert_int_equal(rundir_open(true, err, sizeof(err)), -EPERM);
    assert_non_null(strstr(err, path));
}

static void rundir__follows_no_link(void **state)
{
    (void)state;
    assert_int_equal(symlink("/tmp", path), 0);
    assert_true(rundir_open(true, err, sizeof(err)) < 0);
}

static void rundir__a_name_has_one_holder(void **state)
{
    pid_t pid = holder("one");
    int dir = rundir_open(true, err, sizeof(err)), fd;

    (void)state;
    assert_int_equal(rundir_claim(dir, "one", err, sizeof(err)), -EBUSY);
    assert_non_null(strstr(err, "'one'"));
    assert_string_equal(list(dir), "one ");
    fd = rundir_connect(dir, "one", RUNDIR_CONSOLE);
    assert_true(fd >= 0);
    close(fd);
    end(pid);
    close(dir);
}

static void rundir__forgets_the_killed(void **state)
{
    pid_t one = holder("one"), two = holder("two");
    int dir = rundir_open(true, err, sizeof(err));

    (void)state;
    assert_string_equal(list(dir), "one two ");
    end(one);
    assert_int_equal(rundir_connect(dir, "one", RUNDIR_CONSOLE), -ECONNREFUSED);
    assert_true(there("one.lock") && there("one.console"));
    assert_string_equal(list(dir), "two ");
    assert_false(there("one.lock") || there("one.console"));
    assert_int_equal(rundir_connect(dir, "one", RUNDIR_CONSOLE), -ENOENT);
    end(two);
    /* A name whose files are still there is free. */
    assert_int_equal(rundir_claim(dir, "two", err, sizeof(err)), 0);
    close(rundir_listen(dir, "two", RUNDIR_CONSOLE, err, sizeof(err)));
    close(dir);
}

static void rundir__takes_the_longest_name_in_a_deep_directory(void **state)
{
    char name[RUNDIR_NAME_MAX + 1], deep[200];
    int dir, fd;

    (void)state;
    memset(name, 'n', RUNDIR_NAME_MAX);
    name[RUNDIR_NAME_MAX] = 0;
    snprintf(deep, sizeof(deep), "%s/%0100d", top, 0);
    assert_int_equal(mkdir(deep, 0700), 0);
    setenv("XDG_RUNTIME_DIR", deep, 1);
    dir = rundir_open(true, err, sizeof(err));
    assert_int_equal(rundir_claim(dir, name, err, sizeof(err)), 0);
    fd = rundir_listen(dir, name, RUNDIR_CONSOLE, err, sizeof(err));
    assert_true(fd >= 0);
    assert_true(rundir_connect(dir, name, RUNDIR_CONSOLE) >= 0);
    close(fd);
    close(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(rundir__is_private, setup, teardown),
        cmocka_unit_test_setup_teardown(rundir__follows_no_link, setup, teardown),
        cmocka_unit_test_setup_teardown(rundir__a_name_has_one_holder, setup, teardown),
        cmocka_unit_test_setup_teardown(rundir__forgets_the_killed, setup, teardown),
        cmocka_unit_test_setup_teardown(rundir__takes_the_longest_name_in_a_deep_directory, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
