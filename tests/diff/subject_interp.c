/* SPDX-License-Identifier: Apache-2.0 */
/* The interpreter alone as a subject: RAM, a page walk, and nothing else around it. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "difftest.h"
#include "engine/interp/interp.h"
#include "x86/cpuid.h"
#include "x86/paging.h"

#define STEPS_MAX 400000u

static u8 *ram;
static struct x86_vcpu_state *state;
static struct x86_cpu_model model;
static struct interp *in;

static void *walk_ptr(void *opaque, u64 gpa)
{
    (void)opaque;
    return gpa < GUEST_RAM ? ram + gpa : NULL;
}

static int op_translate(void *opaque, u64 gva, unsigned len, unsigned access,
                        struct interp_ref *ref, struct interp_fault *fault)
{
    static const struct x86_walk_mem mem = {.ptr = walk_ptr};
    struct x86_walk w;

    (void)opaque;
    (void)len;
    if (!x86_walk(state, &mem, gva, access, &w)) {
        *fault = (struct interp_fault){X86_PF, true, w.error, gva};
        return -1;
    }
    ref->gpa = w.gpa;
    ref->host = w.gpa < GUEST_RAM ? ram + w.gpa : NULL;
    return 0;
}

static u64 op_mmio_read(void *opaque, u64 gpa, unsigned len)
{
    (void)opaque;
    (void)gpa;
    return size_mask(len);
}

static void op_mmio_write(void *opaque, u64 gpa, unsigned len, u64 val)
{
    (void)opaque;
    (void)gpa;
    (void)len;
    (void)val;
}

static u32 op_pio_read(void *opaque, u16 port, unsigned len)
{
    (void)opaque;
    (void)port;
    return (u32)size_mask(len);
}

static void op_pio_write(void *opaque, u16 port, unsigned len, u32 val)
{
    (void)opaque;
    (void)port;
    (void)len;
    (void)val;
}

static int op_rdmsr(void *opaque, u32 msr, u64 *val)
{
    (void)opaque;
    (void)msr;
    (void)val;
    return -1;
}

static int op_wrmsr(void *opaque, u32 msr, u64 val)
{
    (void)opaque;
    (void)msr;
    (void)val;
    return -1;
}

static void op_cpuid(void *opaque, u32 leaf, u32 subleaf, u32 out[4])
{
    (void)opaque;
    x86_cpuid(&model, state, 0, true, leaf, subleaf, out);
}

static u64 op_get_cr8(void *opaque)
{
    (void)opaque;
    return 0;
}

static void op_set_cr8(void *opaque, u64 val)
{
    (void)opaque;
    (void)val;
}

static void op_flush(void *opaque, enum interp_flush what, u16 pcid)
{
    (void)opaque;
    (void)what;
    (void)pcid;
}

static void op_invlpg(void *opaque, u64 gva, u16 pcid)
{
    (void)opaque;
    (void)gva;
    (void)pcid;
}

static void op_cr3_written(void *opaque, u64 old, bool noflush)
{
    (void)opaque;
    (void)old;
    (void)noflush;
}

static bool op_hypercall(void *opaque)
{
    (void)opaque;
    return false;
}

static void op_nothing(void *opaque)
{
    (void)opaque;
}

static const struct interp_ops ops = {
    .translate = op_translate,
    .mmio_read = op_mmio_read,
    .mmio_write = op_mmio_write,
    .pio_read = op_pio_read,
    .pio_write = op_pio_write,
    .rdmsr = op_rdmsr,
    .wrmsr = op_wrmsr,
    .cpuid = op_cpuid,
    .get_cr8 = op_get_cr8,
    .set_cr8 = op_set_cr8,
    .flush = op_flush,
    .invlpg = op_invlpg,
    .cr3_written = op_cr3_written,
    .hypercall = op_hypercall,
    .fpu_sync = op_nothing,
    .exclusive_begin = op_nothing,
    .exclusive_end = op_nothing,
};

static void on_signal(int sig, siginfo_t *si, void *ucv)
{
    ucontext_t *uc = ucv;
    u64 pc = (u64)uc->uc_mcontext.gregs[REG_RIP];

    (void)si;
    if (interp_native_signal(in, &pc, (int)uc->uc_mcontext.gregs[REG_TRAPNO])) {
        uc->uc_mcontext.gregs[REG_RIP] = (greg_t)pc;
        return;
    }
    signal(sig, SIG_DFL); /* our own bug: die of it */
}

static void host_cpuid(u32 leaf, u32 subleaf, u32 out[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
                     : "a"(leaf), "c"(subleaf));
}

static bool interp_start(const char *mode)
{
    static const int sigs[] = {SIGFPE, SIGSEGV, SIGBUS, SIGILL, SIGTRAP};
    struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
    struct x86_cpu_options opt = {.ncpus = 1, .tsc_khz = 1000000};
    int fd = memfd_create("native", 0);
    void *rw, *rx, *cache;

    (void)mode;
    if (fd < 0 || ftruncate(fd, 4096))
        return false;
    rw = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    rx = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    ram = mmap(NULL, GUEST_RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cache = calloc(1, interp_cache_size());
    state = aligned_alloc(64, sizeof(*state));
    in = aligned_alloc(64, (sizeof(*in) + 63) & ~63ul);
    if (rw == MAP_FAILED || rx == MAP_FAILED || ram == MAP_FAILED || !cache || !state || !in) {
        perror("difftest: interp");
        return false;
    }
    memset(in, 0, sizeof(*in));
    memset(state, 0, sizeof(*state));
    x86_cpu_model_build(&model, host_cpuid, xl.xcr0, &opt);
    guest_build(ram);
    interp_init(in, state, &model, &ops, NULL, cache, rw, rx);
    for (size_t i = 0; i < ARRAY_SIZE(sigs); i++)
        sigaction(sigs[i], &sa, NULL);
    return true;
}

static void interp_run(const struct diff_case *c, struct diff_result *r)
{
    guest_load(ram, c);
    guest_state(state, c);
    for (unsigned n = 0; n < STEPS_MAX; n++) {
        switch (interp_step(in)) {
        case INTERP_OK:
            continue;
        case INTERP_HLT:
            guest_result(ram, state, r);
            return;
        case INTERP_SHUTDOWN:
            r->outcome = OUT_FAIL;
            snprintf(r->text, sizeof(r->text), "shutdown: %s", in->why);
            return;
        case INTERP_UNSUPPORTED:
            r->outcome = OUT_FAIL;
            snprintf(r->text, sizeof(r->text), "unsupported: %s", in->why);
            return;
        }
    }
    r->outcome = OUT_TIMEOUT;
}

static void interp_stop(void)
{
}

const struct subject subject_interp = {"interp", interp_start, interp_run, interp_stop};
