/* SPDX-License-Identifier: Apache-2.0 */
/* Clocks of the host, and the frequency of its TSC. */
#include <cpuid.h>
#include <pthread.h>
#include <time.h>

#include "core/host.h"
#include "host/init.h"

#define NS_PER_S 1000000000ull

static u64 clock_ns(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (u64)ts.tv_sec * NS_PER_S + (u64)ts.tv_nsec;
}

u64 host_monotonic_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

u64 host_realtime_ns(void)
{
    return clock_ns(CLOCK_REALTIME);
}

u64 host_thread_cpu_ns(void)
{
    return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

/* One reading of both clocks, the TSC as close to the middle of the other as scheduling allows. */
static void read_both(u64 *tsc, u64 *ns)
{
    u64 best = UINT64_MAX;

    for (unsigned i = 0; i < 8; i++) {
        u64 before = clock_ns(CLOCK_MONOTONIC_RAW);
        u64 t = __builtin_ia32_rdtsc();
        u64 after = clock_ns(CLOCK_MONOTONIC_RAW);

        if (after - before < best) {
            best = after - before;
            *tsc = t;
            *ns = before + (after - before) / 2;
        }
    }
}

/* When the program began. */
static u64 first_tsc, first_ns;

void host_clock_begin(void)
{
    read_both(&first_tsc, &first_ns);
}

/* Over ns at least, much of which has gone by already. */
static u64 khz_by_measurement(u64 ns)
{
    u64 tsc = 0, now = clock_ns(CLOCK_MONOTONIC_RAW);

    if (!first_ns) {
        host_clock_begin();
        now = first_ns;
    }
    if (now - first_ns < ns) {
        struct timespec nap = {.tv_nsec = (long)(ns - (now - first_ns))};

        nanosleep(&nap, NULL);
    }
    read_both(&tsc, &now);
    if (now <= first_ns)
        return 0;
    return (u64)((unsigned __int128)(tsc - first_tsc) * 1000000 / (now - first_ns));
}

/* CPUID leaf 15H (SDM 2A CPUID): TSC = crystal * EBX / EAX, where the crystal's frequency is told;
 * or a hypervisor's timing leaf 40000010H: EAX is the TSC's frequency in kHz. */
static u64 khz_by_cpuid(void)
{
    u32 a, b, c, d;

    if (__get_cpuid(0x15, &a, &b, &c, &d) && a && b && c)
        return (u64)c * b / a / 1000;
    __cpuid(1, a, b, c, d);
    if (c & (1u << 31)) {
        __cpuid(0x40000000, a, b, c, d);
        if (a >= 0x40000010 && a < 0x40010000) {
            __cpuid(0x40000010, a, b, c, d);
            return a;
        }
    }
    return 0;
}

static u64 tsc_khz;

static void find_tsc_khz(void)
{
    u64 told = khz_by_cpuid();
    /* To find out whether it is wrong takes less than to find out what it is. */
    u64 measured = khz_by_measurement(told ? 1000000 : 10000000);
    u64 off = told > measured ? told - measured : measured - told;

    /* What CPUID tells is exact, unless it is wrong: then the two differ by more than noise. */
    tsc_khz = told && off <= measured / 100 ? told : measured;
}

u64 host_tsc_khz(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, find_tsc_khz);
    return tsc_khz;
}
