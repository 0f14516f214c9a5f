/* SPDX-License-Identifier: Apache-2.0 */
/* trivisor doctor: what works on this host, what does not, and what to do about it. */
#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "board/engines.h"
#include "board/measure.h"
#include "commands.h"
#include "core/host.h"
#include "core/sandbox.h"
#include "host/init.h"

#define MIB_SHIFT 20
#define EXACT_LIMIT_MS 10000

static void host_cpu_name(char *out, size_t size)
{
    u32 r[12], max, b, c, d;
    const char *s = (const char *)r;

    __cpuid(0x80000000, max, b, c, d);
    memset(r, 0, sizeof(r));
    if (max >= 0x80000004)
        for (u32 i = 0; i < 3; i++)
            __cpuid(0x80000002 + i, r[i * 4], r[i * 4 + 1], r[i * 4 + 2], r[i * 4 + 3]);
    while (*s == ' ')
        s++;
    snprintf(out, size, "%.48s", *s ? s : "unknown");
    for (size_t n = strlen(out); n && out[n - 1] == ' ';)
        out[--n] = 0;
}

static void print_cpu(void)
{
    char name[64];
    u32 a, b, c, d, ext;

    host_cpu_name(name, sizeof(name));
    printf("cpu      %s, %ld online\n", name, sysconf(_SC_NPROCESSORS_ONLN));
    __cpuid(1, a, ext, c, d);
    if (!__get_cpuid_count(7, 0, &a, &b, &ext, &d))
        b = 0;
    printf("         xsave %s, bmi2 %s, fsgsbase %s, avx2 %s, avx-512 %s\n",
           c & (1u << 27) ? "yes" : "no", b & (1u << 8) ? "yes" : "no", b & 1 ? "yes" : "no",
           b & (1u << 5) ? "yes" : "no", b & (1u << 16) ? "yes" : "no");
    printf("         tsc %llu MHz%s\n", (unsigned long long)host_tsc_khz() / 1000,
           c & (1u << 31) ? ", in a virtual machine" : "");
}

static void print_memory(void)
{
    u64 total = host_total_memory(), limit = host_memory_limit();

    printf("memory   %llu MiB", (unsigned long long)(total >> MIB_SHIFT));
    if (limit && limit < total)
        printf(", of which this control group may use %llu MiB",
               (unsigned long long)(limit >> MIB_SHIFT));
    printf("\n");
}

static void print_speed(const struct engine_ops *ops)
{
    struct engine_speed v;
    int r = engine_measure_apart(ops, MEASURE_EXACT, EXACT_LIMIT_MS, &v);

    if (r == -ETIMEDOUT) { /* not as many rounds, then */
        r = engine_measure_apart(ops, MEASURE_EMULATED, EXACT_LIMIT_MS, &v);
        printf("             slow: it emulates rather than runs, or its host is overloaded\n");
    }
    if (r == -ETIMEDOUT)
        printf("             a small guest does not end within %d seconds: it hangs\n",
               EXACT_LIMIT_MS / 1000);
    else if (r)
        printf("             a small guest does not run: %s\n", strerror(-r));
    else if (!v.engine_mips)
        printf("             measured: less than a million instructions a second\n");
    else
        printf("             measured: %llu million instructions a second, %llu %% of the bare "
               "CPU's\n",
               (unsigned long long)v.engine_mips,
               (unsigned long long)(v.engine_mips * 100 / (v.native_mips ? v.native_mips : 1)));
}

static void print_engine(const struct engine_row *e)
{
    struct engine_probe p = {0};

    if (!e->ops) {
        printf("engine   %-4s not built in this version: %s\n", e->name, e->what);
    } else {
        e->ops->probe(&p);
        if (p.works)
            printf("engine   %-4s works: %s\n", e->name, e->what);
        else
            printf("engine   %-4s does not work: %s\n", e->name, p.why);
    }
    if (p.works)
        print_speed(e->ops);
}

static void print_sandbox(void)
{
    struct sandbox_probe p;

    host_sandbox_probe(&p);
    if (p.seccomp)
        printf("sandbox  seccomp works: system calls are filtered\n");
    else
        printf("sandbox  seccomp filters are not offered by this kernel or container: run takes "
               "--sandbox off only\n");
    if (p.landlock)
        printf("         landlock works (ABI %d): no files%s%s\n", p.landlock,
               p.landlock >= 4 ? ", no TCP" : "", p.landlock >= 6 ? ", no other processes" : "");
    else
        printf("         landlock is not offered by this kernel or container: seccomp alone keeps "
               "the machine from files\n");
}

int cmd_doctor(int argc, char **argv)
{
    const struct engine_ops *best;
    char why[512];

    (void)argv;
    if (argc)
        return failure("doctor takes no argument");
    host_init(LOG_WARN);
    print_cpu();
    print_memory();
    print_sandbox();
    for (const struct engine_row *e = engines; e->name; e++)
        print_engine(e);
    if (engine_choose("auto", false, NULL, NULL, &best, why, sizeof(why))) {
        printf("verdict  %s\n", why);
        return EXIT_STATUS_FAILURE;
    }
    printf("verdict  --engine auto takes %s\n", why + strlen("engine: "));
    return 0;
}
