// SPDX-License-Identifier: Apache-2.0
/* Console, verdicts, summary and exit: the part of the library that knows no processor mode. */
#include "guest.h"

#define COM1 0x3f8
#define DEBUG_EXIT 0xf4
#define MAX_LINES 8 /* failed checks printed per test */

extern const struct test _tests[], _tests_end[];

static struct {
    const struct test *test;
    unsigned failed, passed, skipped;
    unsigned checks_failed;
    bool skip, error;
} run;

static volatile u32 print_lock;

static void com1_init(void)
{
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 0x80);
    outb(COM1 + 0, 1); /* 115200 baud */
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 3); /* 8n1 */
    outb(COM1 + 2, 7); /* FIFO on, empty */
    outb(COM1 + 4, 3); /* DTR, RTS */
}

static void putch(char c)
{
    /* A transmitter that never gets ready must not hang the guest. */
    for (unsigned i = 0; i < 100000 && !(inb(COM1 + 5) & 0x20); i++)
        pause();
    outb(COM1, (u8)c);
}

static void put_number(u64 v, unsigned base, bool negative, unsigned width, char pad)
{
    char buf[24];
    unsigned n = 0;

    if (base == 16) {
        do {
            buf[n++] = "0123456789abcdef"[v & 15];
            v >>= 4;
        } while (v);
    } else {
        u32 w = (u32)v; /* decimal numbers stay below 2^32: no 64-bit division in 32-bit guests */
        do {
            buf[n++] = (char)('0' + w % 10);
            w /= 10;
        } while (w);
    }
    if (negative)
        buf[n++] = '-';
    while (width > n) {
        putch(pad);
        width--;
    }
    while (n)
        putch(buf[--n]);
}

void vprint(const char *fmt, va_list ap)
{
    for (; *fmt; fmt++) {
        unsigned width = 0, l = 0;
        char pad = ' ';
        u64 v;

        if (*fmt == '\n')
            putch('\r');
        if (*fmt != '%') {
            putch(*fmt);
            continue;
        }
        fmt++;
        if (*fmt == '0')
            pad = '0';
        while (*fmt >= '0' && *fmt <= '9')
            width = width * 10 + (unsigned)(*fmt++ - '0');
        while (*fmt == 'l') {
            l++;
            fmt++;
        }
        switch (*fmt) {
        case 's':
            for (const char *s = va_arg(ap, const char *); *s; s++)
                putch(*s);
            break;
        case 'c':
            putch((char)va_arg(ap, int));
            break;
        case 'd': {
            long d = l ? va_arg(ap, long) : va_arg(ap, int);
            put_number((u64)(d < 0 ? -d : d), 10, d < 0, width, pad);
            break;
        }
        case 'u':
        case 'x':
            v = l > 1 ? va_arg(ap, unsigned long long)
                : l   ? va_arg(ap, unsigned long)
                      : va_arg(ap, unsigned);
            put_number(v, *fmt == 'x' ? 16 : 10, false, width, pad);
            break;
        case 'p':
            put_number((uptr)va_arg(ap, void *), 16, false, width, pad);
            break;
        default:
            putch(*fmt);
        }
    }
}

void print(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vprint(fmt, ap);
    va_end(ap);
}

void test_failed(int line, const char *fmt, ...)
{
    va_list ap;

    while (__atomic_exchange_n(&print_lock, 1, __ATOMIC_ACQUIRE))
        pause();
    if (run.checks_failed++ < MAX_LINES) {
        print("  %s:%d: ", run.test ? run.test->name : "?", line);
        va_start(ap, fmt);
        vprint(fmt, ap);
        va_end(ap);
        print("\n");
    }
    __atomic_store_n(&print_lock, 0, __ATOMIC_RELEASE);
}

void test_error(const char *fmt, ...)
{
    va_list ap;

    run.error = true;
    print("  %s: ", run.test ? run.test->name : "?");
    va_start(ap, fmt);
    vprint(fmt, ap);
    va_end(ap);
    print("\n");
}

void test_skipped(const char *why)
{
    run.skip = true;
    print("  %s: %s\n", run.test->name, why);
}

#define MULTIBOOT_MAGIC 0x2badb002
#define MULTIBOOT_HAS_CMDLINE 4
#define PVH_MAGIC 0x336ec578

/* The command line is the word "tcg": a hypervisor between us and a TCG hides it. */
static bool told_tcg(void)
{
    const u32 *info = (const u32 *)(uptr)boot_info;
    const char *cmdline = NULL;

    if (boot_magic == MULTIBOOT_MAGIC && info[0] & MULTIBOOT_HAS_CMDLINE)
        cmdline = (const char *)(uptr)info[4];
    else if (info && info[0] == PVH_MAGIC)
        cmdline = (const char *)(uptr)info[6];
    /* Behind the name of the file, where the loader gives that, too. */
    while (cmdline && *cmdline)
        if (*cmdline++ == 't' && cmdline[0] == 'c' && cmdline[1] == 'g' && !cmdline[2])
            return true;
    return false;
}

static bool says_tcg(void)
{
    u32 r[4];

    if (!cpu_has(1, 0, 2, 31))
        return false;
    cpuid(0x40000000, 0, r);
    return r[1] == 0x54474354 && r[2] == 0x43544743 && r[3] == 0x47435447; /* "TCGTCGTCGTCG" */
}

bool on_qemu_tcg(void)
{
    static enum { UNKNOWN, YES, NO } tcg; /* tests may overwrite the command line */

    if (tcg == UNKNOWN)
        tcg = says_tcg() || told_tcg() ? YES : NO;
    return tcg == YES;
}

_Noreturn void guest_exit(u32 value)
{
    outl(DEBUG_EXIT, value);
    for (;;)
        __asm__ volatile("cli; hlt");
}

_Noreturn void run_tests(void)
{
    com1_init();
    on_qemu_tcg();
    for (const struct test *t = _tests; t < _tests_end; t++) {
        bool bad;

        run.test = t;
        run.checks_failed = 0;
        run.skip = run.error = false;
        arch_run_test(t);
        bad = run.error || run.checks_failed;
        if (bad && t->qemu_deviates && on_qemu_tcg()) {
            run.skipped++;
            print("skip %s: QEMU deviates, as expected: %s\n", t->name, t->qemu_deviates);
        } else if (bad) {
            run.failed++;
            print("%s %s\n", run.error ? "error" : "fail", t->name);
        } else if (run.skip) {
            run.skipped++;
            print("skip %s\n", t->name);
        } else {
            run.passed++;
            print("pass %s\n", t->name);
        }
    }
    print("guest: %u passed, %u failed, %u skipped\n", run.passed, run.failed, run.skipped);
    guest_exit(run.failed ? 1 : 0);
}

__attribute__((weak)) void guest_main(void)
{
    run_tests();
}

void *memset(void *d, int c, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((volatile u8 *)d)[i] = (u8)c;
    return d;
}

void *memcpy(void *d, const void *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((volatile u8 *)d)[i] = ((const u8 *)s)[i];
    return d;
}

void *memmove(void *d, const void *s, size_t n)
{
    if ((uptr)d < (uptr)s)
        return memcpy(d, s, n);
    for (size_t i = n; i-- > 0;)
        ((volatile u8 *)d)[i] = ((const u8 *)s)[i];
    return d;
}

int memcmp(const void *a, const void *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int x = ((const u8 *)a)[i] - ((const u8 *)b)[i];
        if (x)
            return x;
    }
    return 0;
}
