/* SPDX-License-Identifier: Apache-2.0 */
/* The log's sink, failed CHECKs, and the last things done before the process ends. */
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/check.h"
#include "core/host.h"
#include "host/init.h"
#include "host/ram.h"

#define END_HOOKS_MAX 8

/* Of malloc, at most. glibc, when it is not told how many, asks for the number of CPUs as soon as
 * threads have more than eight (malloc/arena.c, arena_get2): in a file that a confined process may
 * not open. */
#define ARENAS 8

static enum log_level log_limit = LOG_WARN;
static void (*end_hooks[END_HOOKS_MAX])(void);
static unsigned n_end_hooks;

void host_at_end(void (*fn)(void))
{
    if (n_end_hooks < END_HOOKS_MAX)
        end_hooks[n_end_hooks++] = fn;
}

void host_end(void)
{
    for (unsigned i = 0; i < n_end_hooks; i++)
        end_hooks[i]();
}

void host_fill_standard_fds(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) != fd)
            _exit(125); /* nowhere to say it */
}

/* Whether carriages on standard error do not return by themselves: a raw terminal (ours, for the
 * guest's console). */
static bool stderr_is_raw(void)
{
    struct termios tio;

    return tcgetattr(STDERR_FILENO, &tio) == 0 && !(tio.c_oflag & OPOST);
}

/* Bytes of the printable character at s, of n there are; 0: it is none, or broken UTF-8. Characters
 * 0x80 to 0x9f are control characters too, and terminals obey them in either form. */
static size_t printable(const char *s, size_t n)
{
    u8 c = (u8)s[0];
    size_t len = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : 4;

    if (c < ' ' || c == 0x7f || (c >= 0x80 && c < 0xc2) || c > 0xf4 || len > n ||
        (c == 0xc2 && (u8)s[1] < 0xa0))
        return 0;
    for (size_t i = 1; i < len; i++)
        if (((u8)s[i] & 0xc0) != 0x80)
            return 0;
    return len;
}

void host_print_line(const char *text, size_t n)
{
    char line[1024 + 2];

    if (n > sizeof(line) - 2)
        n = sizeof(line) - 2;
    for (size_t i = 0; i < n;) {
        size_t len = printable(text + i, n - i);

        if (len)
            memcpy(line + i, text + i, len);
        else
            line[i] = '?';
        i += len ? len : 1;
    }
    if (stderr_is_raw())
        line[n++] = '\r';
    line[n++] = '\n';
    if (write(STDERR_FILENO, line, n) < 0)
        return;
}

/* One write a message, so that threads' lines do not mix. */
__attribute__((format(printf, 2, 0))) static void log_to_stderr(enum log_level level,
                                                                const char *fmt, va_list ap)
{
    static const char *const name[] = {"", "warning: ", "", "debug: "};
    char line[1024];
    int n, m;

    if (level > log_limit)
        return;
    n = snprintf(line, sizeof(line), "trivisor: %s", name[level]);
    m = vsnprintf(line + n, sizeof(line) - (size_t)n - 2, fmt, ap);
    if (m < 0)
        return;
    n += m;
    if (n > (int)sizeof(line) - 3)
        n = (int)sizeof(line) - 3;
    if (stderr_is_raw())
        line[n++] = '\r';
    line[n++] = '\n';
    if (write(STDERR_FILENO, line, (size_t)n) < 0)
        return;
}

static void on_check_failed(const char *file, int line, const char *expr)
{
    host_end();
    fprintf(stderr, "trivisor: internal error at %s:%d: %s\n", file, line, expr);
    signal(SIGABRT, SIG_DFL);
    abort();
}

static void on_fatal_signal(int sig, siginfo_t *info, void *context)
{
    (void)context;
    host_ram_check_signal(sig, info);
    host_end();
    /* SA_RESETHAND: the signal, raised again, ends the process the ordinary way. */
    raise(sig);
}

void host_init(enum log_level level)
{
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGQUIT};
    struct sigaction sa = {.sa_sigaction = on_fatal_signal};

    mallopt(M_ARENA_MAX, ARENAS);
    host_clock_begin();
    log_limit = level;
    log_set_sink(log_to_stderr);
    check_set_handler(on_check_failed);
    sa.sa_flags = (int)(SA_RESETHAND | SA_SIGINFO);
    sigemptyset(&sa.sa_mask);
    for (unsigned i = 0; i < ARRAY_SIZE(fatal); i++)
        sigaction(fatal[i], &sa, NULL);
    /* A reader of our output that went away is an error of write, not our end. */
    signal(SIGPIPE, SIG_IGN);
    /* So is a limit on the size of files (ulimit -f). */
    signal(SIGXFSZ, SIG_IGN);
    atexit(host_end);
}
