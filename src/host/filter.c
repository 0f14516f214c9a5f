/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three answers to a system call that no rule permits. Those that no mistake of ours would make
 * kill the process in the kernel (the list below). A foreign calling convention (int 0x80, x32)
 * does too. Anything else raises SIGSYS, whose handler gives the terminal back, names the call and
 * dies: the call was not made, and a second one while the handler runs kills as the handler is not
 * installed any more then.
 */
#include "host/filter.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bits.h"
#include "core/host.h"

static const int deadly[] = {
    /* another program, another process */
    SYS_execve, SYS_execveat, SYS_fork, SYS_vfork, SYS_ptrace, SYS_process_vm_readv,
    SYS_process_vm_writev, SYS_process_madvise, SYS_kcmp, SYS_pidfd_open, SYS_pidfd_getfd,
    SYS_pidfd_send_signal,
    /* another identity, other rights */
    SYS_setuid, SYS_setgid, SYS_setreuid, SYS_setregid, SYS_setresuid, SYS_setresgid, SYS_setfsuid,
    SYS_setfsgid, SYS_setgroups, SYS_capset, SYS_personality, SYS_seccomp, SYS_modify_ldt, SYS_iopl,
    SYS_ioperm,
    /* another view of the system */
    SYS_unshare, SYS_setns, SYS_chroot, SYS_pivot_root, SYS_mount, SYS_umount2, SYS_open_tree,
    SYS_move_mount, SYS_fsopen, SYS_fsmount, SYS_fspick, SYS_mount_setattr, SYS_name_to_handle_at,
    SYS_open_by_handle_at, SYS_mknod, SYS_mknodat,
    /* ways into the kernel with a record of faults */
    SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, SYS_io_uring_setup, SYS_io_uring_enter,
    SYS_io_uring_register, SYS_keyctl, SYS_add_key, SYS_request_key, SYS_init_module,
    SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_kexec_file_load,
    /* the machine as a whole */
    SYS_reboot, SYS_swapon, SYS_swapoff, SYS_sethostname, SYS_setdomainname, SYS_settimeofday,
    SYS_clock_settime, SYS_acct, SYS_quotactl, SYS_syslog};

static const char *process_name;
/* By number: libseccomp's look-up allocates, which a signal handler may not. An array of
 * characters, for one of pointers would be written to at each start (relocation). */
static const char call_name[][32] = {
#include "syscall_names.inc"
};

static void append(char *line, size_t size, const char *text)
{
    size_t n = strlen(line);

    while (*text && n + 1 < size)
        line[n++] = *text++;
    line[n] = '\0';
}

static void append_number(char *line, size_t size, unsigned v)
{
    char digits[16];
    unsigned i = sizeof(digits) - 1;

    digits[i] = '\0';
    do
        digits[--i] = (char)('0' + v % 10);
    while (v /= 10);
    append(line, size, digits + i);
}

static void on_violation(int sig, siginfo_t *info, void *context)
{
    int nr = info->si_syscall;
    char line[160] = "trivisor: ";

    (void)context;
    host_end();
    append(line, sizeof(line), process_name);
    append(line, sizeof(line), " process: the sandbox forbids system call ");
    append_number(line, sizeof(line), (unsigned)nr);
    if (nr >= 0 && nr < (int)ARRAY_SIZE(call_name) && call_name[nr][0]) {
        append(line, sizeof(line), " (");
        append(line, sizeof(line), call_name[nr]);
        append(line, sizeof(line), ")");
    }
    append(line, sizeof(line), "\n");
    if (write(STDERR_FILENO, line, strlen(line)) < 0)
        _exit(128 + sig);
    /* SA_RESETHAND and SA_NODEFER: the default action, now. */
    syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), sig);
    _exit(128 + sig);
}

static int catch_violations(const struct sandbox_spec *spec)
{
    struct sigaction sa = {.sa_sigaction = on_violation};

    process_name = spec->name;
    sa.sa_flags = (int)(SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESETHAND);
    sigemptyset(&sa.sa_mask);
    return sigaction(SIGSYS, &sa, NULL) ? -errno : 0;
}

static int add_rule(scmp_filter_ctx ctx, const struct sandbox_rule *r)
{
    struct scmp_arg_cmp cmp[SANDBOX_CONDS];
    unsigned n = 0;

    for (unsigned i = 0; i < SANDBOX_CONDS; i++) {
        const struct sandbox_cond *c = &r->cond[i];

        if (c->mask)
            cmp[n++] = (struct scmp_arg_cmp){.arg = c->arg,
                                             .op = SCMP_CMP_MASKED_EQ,
                                             .datum_a = c->mask,
                                             .datum_b = c->self ? (u64)getpid() : c->value};
    }
    return seccomp_rule_add_array(ctx, r->error ? SCMP_ACT_ERRNO((u32)r->error) : SCMP_ACT_ALLOW,
                                  r->nr, n, cmp);
}

/* In the tables from number t on. */
static bool has_rule(const struct sandbox_spec *spec, unsigned t, int nr)
{
    for (; t < SANDBOX_TABLES && spec->rules[t]; t++)
        for (const struct sandbox_rule *r = spec->rules[t]; r->why; r++)
            if (r->nr == nr)
                return true;
    return false;
}

static int build(scmp_filter_ctx ctx, const struct sandbox_spec *spec)
{
    int err = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);

    if (!err)
        err = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
    /* A binary tree: dozens of system calls, of which the frequent ones differ by guest. */
    if (!err)
        err = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    /* Violations go to the audit log where there is one; kernels before 4.14 cannot. */
    if (!err)
        seccomp_attr_set(ctx, SCMP_FLTATR_CTL_LOG, 1);
    for (unsigned t = 0; t < SANDBOX_TABLES && spec->rules[t] && !err; t++)
        for (const struct sandbox_rule *r = spec->rules[t]; r->why && !err; r++)
            /* What is refused politely may be permitted by a later table. */
            if (!r->error || !has_rule(spec, t + 1, r->nr))
                err = add_rule(ctx, r);
    for (unsigned i = 0; i < ARRAY_SIZE(deadly) && !err; i++)
        if (!has_rule(spec, 0, deadly[i]))
            err = seccomp_rule_add(ctx, SCMP_ACT_KILL_PROCESS, deadly[i], 0);
    return err;
}

bool filter_available(void)
{
    u32 action = SECCOMP_RET_TRAP;

    return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

int filter_install(const struct sandbox_spec *spec, char *err, size_t err_size)
{
    scmp_filter_ctx ctx;
    int r;

    if (!filter_available()) {
        snprintf(err, err_size, "this kernel or container does not offer seccomp filters");
        return -ENOSYS;
    }
    ctx = seccomp_init(SCMP_ACT_TRAP);
    if (!ctx) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    r = build(ctx, spec);
    if (!r)
        r = catch_violations(spec);
    if (!r)
        r = seccomp_load(ctx);
    seccomp_release(ctx);
    /* What libseccomp needed to make a program of the rules: some 200 KiB in each of our processes.
     */
    malloc_trim(0);
    if (r)
        snprintf(err, err_size, "seccomp: %s", strerror(-r));
    return r;
}
