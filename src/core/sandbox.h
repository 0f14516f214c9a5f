/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Confinement: what a process may still do once it is set up. A machine's process and each helper
 * process state it as tables of permitted system calls, each entry with its reason; everything else
 * ends the process. src/host implements it with seccomp (seccomp(2)), Landlock (landlock(7)) and
 * the dropping of capabilities (capabilities(7)).
 */
#ifndef TRIVISOR_CORE_SANDBOX_H
#define TRIVISOR_CORE_SANDBOX_H

#include "base/types.h"

/* --- rules --- */

/*
 * A condition on an argument of a system call: (argument & mask) == value. mask 0: no condition.
 * Write them with the macros. They can only look at numbers: what a pointer points to may change
 * after the check.
 */
struct sandbox_cond {
    u64 mask, value;
    u8 arg;    /* 0 to 5 */
    bool self; /* value is the process's own id, filled in by host_confine */
};

/* Argument n, which is an int or unsigned int to the kernel, is v. */
#define SANDBOX_INT(n, v)                                                                          \
    {                                                                                              \
        .mask = 0xffffffffu, .value = (u32)(v), .arg = (n)                                         \
    }
/* Of argument n, the bits of the mask are v. */
#define SANDBOX_MASKED(n, bits, v)                                                                 \
    {                                                                                              \
        .mask = (bits), .value = (v), .arg = (n)                                                   \
    }
/* Argument n has none of these bits. */
#define SANDBOX_WITHOUT(n, bits)                                                                   \
    {                                                                                              \
        .mask = (bits), .value = 0, .arg = (n)                                                     \
    }
/* Argument n, a process id, is this process's. */
#define SANDBOX_SELF(n)                                                                            \
    {                                                                                              \
        .mask = 0xffffffffu, .arg = (n), .self = true                                              \
    }

#define SANDBOX_CONDS 3

/*
 * One permitted system call. All its conditions hold, or the rule does not apply; several rules for
 * one call are alternatives. A call that needs no condition is the cheapest for the kernel, which
 * remembers that it is permitted whatever its arguments are.
 */
struct sandbox_rule {
    int nr;          /* SYS_... of <sys/syscall.h> */
    const char *why; /* who calls it, and when; NULL ends a table */
    struct sandbox_cond cond[SANDBOX_CONDS];
    /* Not 0: the call is not made but fails with this errno. For what libraries try and can do
     * without. */
    int error;
};

#define SANDBOX_ALLOW(number, reason, ...)                                                         \
    {                                                                                              \
        .nr = (number), .why = (reason), .cond = { __VA_ARGS__ }                                   \
    }
#define SANDBOX_FAIL(number, reason, err)                                                          \
    {                                                                                              \
        .nr = (number), .why = (reason), .error = (err)                                            \
    }
#define SANDBOX_END                                                                                \
    {                                                                                              \
        .why = NULL                                                                                \
    }

/* What every process needs: memory that is not executable, locks, clocks, reading and writing its
 * descriptors, ending. */
extern const struct sandbox_rule sandbox_base_rules[];

/* A directory whose files stay reachable, or one file (with the system calls the rules permit). */
struct sandbox_dir {
    int fd; /* of the directory or file, O_PATH will do; the caller's */
    bool write;
};

#define SANDBOX_TABLES 4

struct sandbox_spec {
    const char *name; /* of the process, for messages: "vm", "net" */
    /* Tables, each ended by SANDBOX_END. Give sandbox_base_rules too, and first: a later table may
     * permit what an earlier one lets fail. */
    const struct sandbox_rule *rules[SANDBOX_TABLES];
    const struct sandbox_dir *dirs; /* the file system: these directories, nothing else */
    unsigned ndirs;
    u64 caps;     /* capabilities it keeps of those it has: bits 1 << CAP_... */
    bool network; /* TCP may be bound and connected, abstract unix sockets connected */
    bool signals; /* Landlock keeps no signals from other processes: the rules name them */
};

/*
 * Confines the whole process, all its threads, for good: no new privileges, no capabilities
 * but spec->caps, no file system but spec->dirs, no system calls but spec->rules, no core files, no
 * debugger. A call that is not permitted ends the process: with a line that names it and the
 * terminal given back where it could be a mistake of ours, at once where it could not (execve,
 * ptrace, socket...).
 *
 * Call it once, when everything is open. Threads must not have blocked all signals, and none may be
 * created meanwhile; what the rules let be created later is confined alike. 0, or -errno with one
 * line in err; Landlock may be missing (host_sandbox_probe tells), seccomp may not.
 */
int host_confine(const struct sandbox_spec *spec, char *err, size_t err_size);

struct sandbox_probe {
    bool seccomp;
    int landlock; /* ABI version; 0: not there */
};
void host_sandbox_probe(struct sandbox_probe *p);

/* --- descriptors the caller of the program left open --- */

/* Notes what is open now. First thing in the program. */
void host_note_inherited_fds(void);
/* fd was inherited, and is meant to be used. */
void host_adopt_fd(int fd);
/* Closes what was noted, but standard input, output and error and what was adopted. */
void host_close_inherited_fds(void);

/* --- helper processes --- */

/*
 * Forks a process that runs fn(opaque), which sets itself up, calls host_confine and serves; what
 * fn returns is its exit status. In the child: only descriptors 0 to 2 and keep[0..nkeep) are open
 * (standard input and output are /dev/null; a line on standard error comes out on the machine's,
 * made printable), signals have their default action but SIGINT, SIGHUP,
 * SIGTERM and SIGPIPE, which are ignored (the machine's process ends it by closing their socket),
 * and it is killed when the machine's process ends. Memory is a copy; guest memory, windows and the
 * code cache are not in it. Call it from the main thread before other threads exist. The child's
 * id, or -errno.
 */
int host_helper_fork(const char *name, const int *keep, unsigned nkeep, int (*fn)(void *opaque),
                     void *opaque);

/*
 * The same for a machine that is another process's: the helper is nobody's child and in a session
 * of its own, and ends when it sees that the other ends of its descriptors are closed. *messages:
 * where its standard error can be read; the machine's process gives it to host_helper_listen, which
 * takes it over. On the event loop. 0 or -errno.
 */
int host_helper_fork_apart(const char *name, const int *keep, unsigned nkeep,
                           int (*fn)(void *opaque), void *opaque, int *messages);
int host_helper_listen(int messages);

#endif
