/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Confinement from inside: each attempt runs in a process of its own, with a second thread, that
 * has confined itself. What is forbidden must end it with SIGSYS or, where only Landlock stands in
 * the way, fail.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/host.h"
#include "core/sandbox.h"
#include "test.h"

#define UNCONFINED 99 /* exit status of a child that host_confine failed in */

/* What the attempts may use besides the base rules. */
static const struct sandbox_rule extra[] = {
    SANDBOX_ALLOW(SYS_openat, "to see Landlock at work"),
    SANDBOX_ALLOW(SYS_socket, "the same"),
    SANDBOX_ALLOW(SYS_connect, "the same"),
    SANDBOX_ALLOW(SYS_kill, "the same"),
    SANDBOX_FAIL(SYS_getppid, "to see an error", ENOLINK),
    SANDBOX_END,
};

static const struct sandbox_spec strict = {.name = "test", .rules = {sandbox_base_rules}};

static void idle(void *opaque)
{
    host_event_wait(opaque, UINT64_MAX);
}

static void confine(const struct sandbox_spec *spec)
{
    char err[200];

    if (host_confine(spec, err, sizeof(err))) {
        fprintf(stderr, "host_confine: %s\n", err);
        _exit(UNCONFINED);
    }
}

/* Wait status of a process that confines itself and calls fn; stderr goes to err_text. */
static int try(const struct sandbox_spec *spec, int (*fn)(void), char *err_text, size_t size)
{
    int pipes[2], status;
    ssize_t n;
    pid_t pid;

    assert_int_equal(pipe(pipes), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        static struct host_event never;
        struct host_thread *t;

        dup2(pipes[1], STDERR_FILENO);
        if (host_thread_create(&t, "idle", idle, &never))
            _exit(UNCONFINED);
        confine(spec);
        _exit(fn());
    }
    close(pipes[1]);
    n = read(pipes[0], err_text, size - 1);
    err_text[n > 0 ? n : 0] = '\0';
    close(pipes[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static bool dies(int status)
{
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
}

static long forbidden_call[8];

static int call_forbidden(void)
{
    long *a = forbidden_call;

    syscall(a[0], a[1], a[2], a[3], a[4], a[5], a[6]);
    return 0;
}

static void sandbox__forbidden_calls_kill(void **state)
{
    static char dot[] = ".";
    static const struct {
        const char *name;
        long call[7];
    } attempts[] = {
        {"open", {SYS_open, (long)dot}},
        {"openat", {SYS_openat, AT_FDCWD, (long)dot}},
        {"openat2", {SYS_openat2, AT_FDCWD, (long)dot}},
        {"stat", {SYS_stat, (long)dot}},
        {"unlink", {SYS_unlink, (long)dot}},
        {"socket", {SYS_socket, AF_UNIX, SOCK_STREAM}},
        {"socketpair", {SYS_socketpair, AF_UNIX, SOCK_STREAM}},
        {"connect", {SYS_connect, 0}},
        {"bind", {SYS_bind, 0}},
        {"ptrace", {SYS_ptrace, 0}},
        {"execve", {SYS_execve, (long)dot}},
        {"execveat", {SYS_execveat, AT_FDCWD, (long)dot}},
        {"fork", {SYS_fork}},
        {"vfork", {SYS_vfork}},
        {"clone", {SYS_clone, SIGCHLD}},
        {"clone of a thread", {SYS_clone, CLONE_VM | CLONE_THREAD | CLONE_SIGHAND}},
        {"clone3", {SYS_clone3}},
        {"kill", {SYS_kill, 1, 0}},
        {"tkill", {SYS_tkill, 1, 0}},
        {"tgkill of another process", {SYS_tgkill, 1, 1, 0}},
        {"rt_sigqueueinfo", {SYS_rt_sigqueueinfo, 1}},
        {"pidfd_open", {SYS_pidfd_open, 1}},
        {"mmap for execution", {SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC, 0x22, -1}},
        {"mprotect for execution", {SYS_mprotect, 0x10000, 4096, PROT_EXEC}},
        {"pkey_mprotect", {SYS_pkey_mprotect, 0x10000, 4096, PROT_EXEC, -1}},
        {"shmat", {SYS_shmat}},
        {"memfd_create", {SYS_memfd_create, (long)dot}},
        {"process_vm_readv", {SYS_process_vm_readv, 1}},
        {"process_vm_writev", {SYS_process_vm_writev, 1}},
        {"io_uring_setup", {SYS_io_uring_setup, 1}},
        {"bpf", {SYS_bpf}},
        {"perf_event_open", {SYS_perf_event_open}},
        {"userfaultfd", {SYS_userfaultfd}},
        {"keyctl", {SYS_keyctl}},
        {"add_key", {SYS_add_key}},
        {"mount", {SYS_mount}},
        {"unshare", {SYS_unshare, CLONE_NEWUSER}},
        {"setns", {SYS_setns}},
        {"chroot", {SYS_chroot, (long)dot}},
        {"pivot_root", {SYS_pivot_root}},
        {"setuid", {SYS_setuid, 0}},
        {"setresuid", {SYS_setresuid}},
        {"capset", {SYS_capset}},
        {"personality", {SYS_personality, 0x0400000}},
        {"seccomp", {SYS_seccomp}},
        {"modify_ldt", {SYS_modify_ldt}},
        {"arch_prctl", {SYS_arch_prctl, 0x1001}},
        {"prctl, dumpable again", {SYS_prctl, PR_SET_DUMPABLE, 1}},
        {"prctl, no seccomp", {SYS_prctl, PR_SET_SECCOMP}},
        {"ioctl TIOCSTI", {SYS_ioctl, 0, 0x5412}},
        {"fcntl F_SETOWN", {SYS_fcntl, 0, F_SETOWN, 1}},
        {"sigaction of SIGSYS", {SYS_rt_sigaction, SIGSYS}},
        {"the same, high bits set", {SYS_rt_sigaction, SIGSYS | 1L << 32}},
        {"setrlimit", {SYS_setrlimit}},
        {"prlimit64", {SYS_prlimit64, 1}},
        {"x32 read", {0x40000000 | SYS_read, 0}},
        {"unknown", {400}},
    };
    char text[200];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(attempts); i++) {
        int status;

        memcpy(forbidden_call, attempts[i].call, sizeof(attempts[i].call));
        status = try(&strict, call_forbidden, text, sizeof(text));
        if (!dies(status))
            fail_msg("%s: wait status %#x, %s", attempts[i].name, (unsigned)status, text);
    }
}

static int int_0x80(void)
{
    long ret;

    /* 20 is getpid to the 32-bit convention, writev to ours. */
    __asm__ volatile("int $0x80" : "=a"(ret) : "0"(20L) : "memory");
    return 0;
}

static void sandbox__other_calling_convention_kills(void **state)
{
    char text[200];

    (void)state;
    assert_true(dies(try(&strict, int_0x80, text, sizeof(text))));
}

static void in_thread(void *opaque)
{
    (void)opaque;
    syscall(SYS_mkdir, "x", 0);
    _exit(0);
}

static struct host_event go;

static void wait_and_try(void *opaque)
{
    host_event_wait(&go, UINT64_MAX);
    in_thread(opaque);
}

static void sandbox__covers_threads_that_exist(void **state)
{
    int status;
    pid_t pid = fork();

    (void)state;
    if (pid == 0) {
        struct host_thread *t;

        if (host_thread_create(&t, "try", wait_and_try, NULL))
            _exit(UNCONFINED);
        confine(&strict);
        host_event_set(&go);
        host_thread_join(t);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(dies(status));
}

static void sandbox__names_the_call(void **state)
{
    char text[200];

    (void)state;
    forbidden_call[0] = SYS_openat;
    assert_true(dies(try(&strict, call_forbidden, text, sizeof(text))));
    assert_string_equal(text, "trivisor: test process: the sandbox forbids system call 257 "
                              "(openat)\n");
    /* One that no mistake explains dies in the kernel. */
    forbidden_call[0] = SYS_execve;
    assert_true(dies(try(&strict, call_forbidden, text, sizeof(text))));
    assert_string_equal(text, "");
}

static int ordinary_life(void)
{
    int fds = 0;
    void *p = malloc(1 << 20), *q;

    q = realloc(p, 1 << 24);
    if (!q)
        return 1;
    free(q);
    fds = fcntl(STDERR_FILENO, F_GETFL);
    if (fds < 0 || syscall(SYS_getppid) != -1 || errno != ENOLINK)
        return 2;
    if (host_monotonic_ns() == 0 || printf("#\n") < 0 || fflush(stdout))
        return 3;
    return 42;
}

static void sandbox__permits_ordinary_life(void **state)
{
    static const struct sandbox_spec spec = {.name = "test", .rules = {sandbox_base_rules, extra}};
    char text[200];
    int status;

    (void)state;
    status = try(&spec, ordinary_life, text, sizeof(text));
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 42)
        fail_msg("wait status %#x: %s", (unsigned)status, text);
}

/* Fields of /proc/self/task/TID/status, read through descriptors opened before. */
static int status_fd[2];

static bool status_has(int fd, const char *line)
{
    char text[4096];
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    return strstr(text, line) != NULL;
}

static void *tell_tid(void *opaque)
{
    __atomic_store_n((int *)opaque, (int)syscall(SYS_gettid), __ATOMIC_RELEASE);
    while (pause())
        ;
    return NULL;
}

static void sandbox__every_thread_gives_up_its_rights(void **state)
{
    static const struct sandbox_rule look[] = {
        SANDBOX_ALLOW(SYS_pread64, "the test reads its status"),
        SANDBOX_END,
    };
    static const struct sandbox_spec spec = {.name = "test", .rules = {sandbox_base_rules, look}};
    static const char *const lines[] = {
        "\nCapPrm:\t0000000000000000\n", "\nCapEff:\t0000000000000000\n",
        "\nCapInh:\t0000000000000000\n", "\nNoNewPrivs:\t1\n", "\nSeccomp:\t2\n"};
    int status;
    pid_t pid = fork();

    (void)state;
    if (pid == 0) {
        int tid = 0;
        bool root = getuid() == 0;
        char path[64];
        pthread_t t;

        pthread_create(&t, NULL, tell_tid, &tid);
        while (!__atomic_load_n(&tid, __ATOMIC_ACQUIRE))
            sched_yield();
        for (int i = 0; i < 2; i++) {
            snprintf(path, sizeof(path), "/proc/self/task/%d/status", i ? tid : getpid());
            status_fd[i] = open(path, O_RDONLY | O_CLOEXEC);
        }
        confine(&spec);
        for (int i = 0; i < 2; i++) {
            for (size_t j = 0; j < ARRAY_SIZE(lines); j++)
                if (!status_has(status_fd[i], lines[j]))
                    _exit(1 + i * 10 + (int)j);
            if (root && !status_has(status_fd[i], "\nCapBnd:\t0000000000000000\n"))
                _exit(30 + i);
        }
        _exit(42);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 42);
}

/* --- Landlock, with a filter that lets the calls through --- */

static int dir_fd;

static int use_files(void)
{
    if (openat(AT_FDCWD, "/etc/passwd", O_RDONLY) >= 0 || errno != EACCES)
        return 1;
    if (openat(AT_FDCWD, "/", O_RDONLY | O_DIRECTORY) >= 0 || errno != EACCES)
        return 2;
    return 42;
}

static int use_dir(void)
{
    if (use_files() != 42)
        return 1;
    if (openat(dir_fd, "f", O_RDONLY) < 0)
        return 2;
    if (openat(dir_fd, "f", O_RDWR) >= 0 || errno != EACCES)
        return 3;
    if (openat(dir_fd, "g", O_RDWR | O_CREAT, 0600) >= 0 || errno != EACCES)
        return 4;
    return 42;
}

static int use_dir_writing(void)
{
    if (use_files() != 42)
        return 1;
    if (openat(dir_fd, "g", O_RDWR | O_CREAT, 0600) < 0)
        return 2;
    if (openat(dir_fd, "../g", O_RDWR | O_CREAT, 0600) >= 0 || errno != EACCES)
        return 3;
    return 42;
}

static pid_t outside;

static int signal_outside(void)
{
    return kill(outside, 0) == 0 ? 1 : errno == EPERM ? 42 : 2;
}

static void assert_result(const struct sandbox_spec *spec, int (*fn)(void))
{
    char text[200];
    int status = try(spec, fn, text, sizeof(text));

    if (!WIFEXITED(status) || WEXITSTATUS(status) != 42)
        fail_msg("wait status %#x: %s", (unsigned)status, text);
}

static void sandbox__landlock_denies_files(void **state)
{
    char path[] = "/tmp/trivisor-sandbox-XXXXXX";
    struct sandbox_dir dir = {0};
    struct sandbox_spec spec = {.name = "test", .rules = {sandbox_base_rules, extra}};
    struct sandbox_probe probe;

    (void)state;
    host_sandbox_probe(&probe);
    assert_true(probe.seccomp);
    if (!probe.landlock)
        skip();
    assert_result(&spec, use_files);
    assert_non_null(mkdtemp(path));
    dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(dir_fd >= 0);
    close(openat(dir_fd, "f", O_RDWR | O_CREAT, 0600));
    dir.fd = dir_fd;
    spec.dirs = &dir;
    spec.ndirs = 1;
    assert_result(&spec, use_dir);
    dir.write = true;
    assert_result(&spec, use_dir_writing);
    unlinkat(dir_fd, "f", 0);
    unlinkat(dir_fd, "g", 0);
    close(dir_fd);
    rmdir(path);
}

static void sandbox__landlock_denies_signals(void **state)
{
    static const struct sandbox_spec spec = {.name = "test", .rules = {sandbox_base_rules, extra}};
    struct sandbox_probe probe;

    (void)state;
    host_sandbox_probe(&probe);
    if (probe.landlock < 7)
        skip();
    outside = getpid();
    assert_result(&spec, signal_outside);
}

/* --- descriptors and helpers --- */

static void sandbox__inherited_descriptors_are_closed(void **state)
{
    int status;
    pid_t pid = fork();

    (void)state;
    if (pid == 0) {
        int a = dup(0), b = dup(0), mine;

        host_note_inherited_fds();
        mine = dup(0);
        host_adopt_fd(b);
        host_close_inherited_fds();
        _exit(fcntl(a, F_GETFD) < 0 && fcntl(b, F_GETFD) >= 0 && fcntl(mine, F_GETFD) >= 0 ? 42
                                                                                           : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WEXITSTATUS(status), 42);
}

static int helper_sockets[2];

static int helper(void *opaque)
{
    char c, null;

    (void)opaque;
    confine(&strict);
    if (fcntl(helper_sockets[0], F_GETFD) >= 0 || read(STDIN_FILENO, &null, 1) != 0)
        return 1;
    /* Echoes until the other end is closed. */
    while (read(helper_sockets[1], &c, 1) == 1)
        if (write(helper_sockets[1], &c, 1) != 1)
            return 2;
    return 42;
}

static void sandbox__helper_serves_confined(void **state)
{
    int pid, status;
    char c = 'x';

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, helper_sockets), 0);
    pid = host_helper_fork("helper", &helper_sockets[1], 1, helper, NULL);
    assert_true(pid > 0);
    close(helper_sockets[1]);
    assert_int_equal(write(helper_sockets[0], &c, 1), 1);
    c = 0;
    assert_int_equal(read(helper_sockets[0], &c, 1), 1);
    assert_int_equal(c, 'x');
    close(helper_sockets[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 42);
}

static int talker(void *opaque)
{
    static const char text[] = "one\n\033[31mtwo\n";

    (void)opaque;
    return isatty(STDERR_FILENO) || write(STDERR_FILENO, text, sizeof(text) - 1) < 0;
}

/* What helpers say comes out here, as lines of text, and they hold none of our descriptors. */
static void sandbox__helper_speaks_through_us(void **state)
{
    char said[64] = "";
    int ends[2], status;
    pid_t pid;

    (void)state;
    assert_int_equal(pipe(ends), 0);
    pid = fork();
    if (pid == 0) {
        dup2(ends[1], STDERR_FILENO);
        pid = host_helper_fork("helper", NULL, 0, talker, NULL);
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
            _exit(1);
        host_end();
        _exit(42);
    }
    close(ends[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WEXITSTATUS(status), 42);
    assert_true(read(ends[0], said, sizeof(said) - 1) > 0);
    assert_string_equal(said, "one\n?[31mtwo\n");
    close(ends[0]);
}

static void sandbox__helper_does_not_get_guest_memory(void **state)
{
    struct host_ram ram;
    struct host_code code;
    int status;
    pid_t pid;

    (void)state;
    assert_int_equal(host_ram_alloc(&ram, 1 << 20), 0);
    assert_int_equal(host_code_alloc(&code, 1 << 16), 0);
    pid = fork();
    if (pid == 0) {
        unsigned char there;
        bool gone = mincore(ram.ptr, 4096, &there) < 0 && errno == ENOMEM &&
                    mincore(code.rw, 4096, &there) < 0 && errno == ENOMEM;
        _exit(gone ? 42 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WEXITSTATUS(status), 42);
    host_code_free(&code);
    host_ram_free(&ram);
}

static struct host_event begin, end;

static void end_late(void *unused)
{
    sigset_t all;

    (void)unused;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    host_event_set(&end);
    usleep(200000);
}

/* As one that is about to end: it takes no signal any more. */
static void sandbox__a_thread_that_ends_meanwhile(void **state)
{
    pid_t pid = fork();
    int status;

    (void)state;
    if (pid == 0) {
        struct host_thread *t;

        if (host_thread_create(&t, "ends", end_late, NULL))
            _exit(1);
        host_event_wait(&end, UINT64_MAX);
        confine(&strict);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void *volatile held[20];

static void allocate(void *unused)
{
    (void)unused;
    host_event_wait(&begin, UINT64_MAX);
    for (size_t i = 0; i < ARRAY_SIZE(held); i++)
        held[i] = malloc(65536);
    host_event_set(&end);
    host_event_wait(&begin, UINT64_MAX);
}

/* What a thread has allocated is given back: malloc does not look for how that is done here. */
static void sandbox__memory_of_threads_is_given_back(void **state)
{
    pid_t pid = fork();
    int status;

    (void)state;
    if (pid == 0) {
        struct host_thread *t;

        if (host_thread_create(&t, "allocates", allocate, NULL))
            _exit(UNCONFINED);
        confine(&strict);
        host_event_set(&begin);
        host_event_wait(&end, UINT64_MAX);
        for (size_t i = 0; i < ARRAY_SIZE(held); i++)
            free(held[i]);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sandbox__forbidden_calls_kill),
        cmocka_unit_test(sandbox__other_calling_convention_kills),
        cmocka_unit_test(sandbox__covers_threads_that_exist),
        cmocka_unit_test(sandbox__names_the_call),
        cmocka_unit_test(sandbox__permits_ordinary_life),
        cmocka_unit_test(sandbox__every_thread_gives_up_its_rights),
        cmocka_unit_test(sandbox__a_thread_that_ends_meanwhile),
        cmocka_unit_test(sandbox__memory_of_threads_is_given_back),
        cmocka_unit_test(sandbox__landlock_denies_files),
        cmocka_unit_test(sandbox__landlock_denies_signals),
        cmocka_unit_test(sandbox__inherited_descriptors_are_closed),
        cmocka_unit_test(sandbox__helper_serves_confined),
        cmocka_unit_test(sandbox__helper_speaks_through_us),
        cmocka_unit_test(sandbox__helper_does_not_get_guest_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
