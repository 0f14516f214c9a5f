/* SPDX-License-Identifier: Apache-2.0 */
/* The engine seam of kvm: what is opened and made, before the process is confined. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "engine/kvm/kvm.h"
#include "engine/kvm/kvm_priv.h"

/* Three pages and one in the hole below 4 GiB that the board leaves empty, for VT-x without
 * unrestricted guests (api.rst, KVM_SET_TSS_ADDR). */
#define IDENTITY_MAP 0xfffbc000ull
#define TSS_ADDRESS 0xfffbd000ull

/* Without these it does not go; all are there since Linux 5.16. */
static const struct {
    int cap;
    const char *name;
} needed[] = {
    {KVM_CAP_USER_MEMORY, "user memory"},
    {KVM_CAP_READONLY_MEM, "read-only memory"},
    {KVM_CAP_SPLIT_IRQCHIP, "local APICs (split irqchip)"},
    {KVM_CAP_X2APIC_API, "x2APIC interface"},
    {KVM_CAP_SIGNAL_MSI, "message-signalled interrupts"},
    {KVM_CAP_IRQ_ROUTING, "interrupt routes"},
    {KVM_CAP_IRQFD, "interrupts by eventfd (irqfd)"},
    {KVM_CAP_TSC_DEADLINE_TIMER, "TSC-deadline timer"},
    {KVM_CAP_IOEVENTFD, "doorbells (ioeventfd)"},
    {KVM_CAP_IOEVENTFD_ANY_LENGTH, "doorbells of any length"},
    {KVM_CAP_MP_STATE, "states of vCPUs"},
    {KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
    {KVM_CAP_VCPU_EVENTS, "vCPU events"},
    {KVM_CAP_DEBUGREGS, "debug registers"},
    {KVM_CAP_XSAVE, "XSAVE"},
    {KVM_CAP_SREGS2, "special registers, second form"},
    {KVM_CAP_X86_USER_SPACE_MSR, "MSRs in user space"},
    {KVM_CAP_X86_MSR_FILTER, "MSR filters"},
    {KVM_CAP_ENFORCE_PV_FEATURE_CPUID, "paravirtual features by CPUID"},
    {KVM_CAP_EXIT_ON_EMULATION_FAILURE, "exits on emulation failures"},
    {KVM_CAP_VCPU_ATTRIBUTES, "vCPU attributes (TSC offset)"},
};

int kvm_ioctl_int(int fd, unsigned long request, unsigned long arg)
{
    int r = ioctl(fd, request, arg);

    return r < 0 ? -errno : r;
}

int kvm_ioctl(int fd, unsigned long request, void *arg)
{
    int r;

    do
        r = kvm_ioctl_int(fd, request, (unsigned long)arg);
    while (r == -EINTR);
    return r;
}

/* /dev/kvm, or -errno with one sentence in why. */
static int open_kvm(char *why, size_t size)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), r;

    if (fd < 0) {
        r = -errno;
        if (r == -ENOENT)
            snprintf(
                why, size,
                "there is no /dev/kvm: the kvm module is not loaded, or this CPU, container or "
                "virtual machine offers no VT-x or AMD-V");
        else if (r == -EACCES || r == -EPERM)
            snprintf(why, size,
                     "/dev/kvm may not be used: join the group that owns it (usermod -aG kvm "
                     "USER)");
        else
            snprintf(why, size, "/dev/kvm cannot be opened: %s", strerror(-r));
        return r;
    }
    r = kvm_ioctl_int(fd, KVM_GET_API_VERSION, 0);
    if (r != KVM_API_VERSION) {
        snprintf(why, size, "/dev/kvm has version %d of its interface, not %d", r, KVM_API_VERSION);
        close(fd);
        return -ENOSYS;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(needed); i++) {
        if (kvm_ioctl_int(fd, KVM_CHECK_EXTENSION, (unsigned long)needed[i].cap) > 0)
            continue;
        snprintf(why, size, "this host's KVM has no %s (Linux 5.16 has it)", needed[i].name);
        close(fd);
        return -ENOSYS;
    }
    return fd;
}

static void kvm_probe(struct engine_probe *p)
{
    int fd;

    memset(p, 0, sizeof(*p));
    fd = open_kvm(p->why, sizeof(p->why));
    if (fd < 0)
        return;
    close(fd);
    p->works = true;
}

static int kvm_engine_restrict(struct x86_cpu_model *model)
{
    char why[160];
    int sys = open_kvm(why, sizeof(why)), err;

    if (sys < 0)
        return sys;
    err = kvm_restrict_model(model, sys);
    close(sys);
    return err;
}

static void free_machine(struct kvm_machine *m)
{
    kvm_dirty_free(m);
    kvm_irqfds_destroy(m);
    if (m->fd >= 0)
        close(m->fd);
    free(m);
}

static int enable(struct kvm_machine *m, u32 cap, u64 arg)
{
    struct kvm_enable_cap c = {.cap = cap, .args = {arg}};

    return kvm_ioctl(m->fd, KVM_ENABLE_CAP, &c);
}

static int set_up(struct kvm_machine *m, int sys)
{
    u64 identity = IDENTITY_MAP;
    int err, size;

    m->fd = kvm_ioctl_int(sys, KVM_CREATE_VM, 0);
    if (m->fd < 0)
        return m->fd;
    fcntl(m->fd, F_SETFD, FD_CLOEXEC);
    size = kvm_ioctl_int(sys, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (size < (int)sizeof(struct kvm_run))
        return size < 0 ? size : -EINVAL;
    m->run_size = (u64)size;
    /* Of this VM's: states the process has no permission for (arch_prctl(2)) do not count. */
    size = kvm_ioctl_int(m->fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
    m->xsave_size = size > X86_XSAVE_SIZE ? (u32)size : X86_XSAVE_SIZE;
    err = kvm_restrict_model(&m->vm->cpu_model, sys);
    if (!err)
        err = kvm_ioctl(m->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
    if (!err)
        err = kvm_ioctl_int(m->fd, KVM_SET_TSS_ADDR, TSS_ADDRESS);
    if (!err)
        err = enable(m, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1);
    /* Before there is a vCPU. GSIs 0 to 23 are the pins of an I/O APIC that is not KVM's. */
    if (!err)
        err = enable(m, KVM_CAP_SPLIT_IRQCHIP, ENGINE_PINS_MAX);
    if (!err)
        err = enable(m, KVM_CAP_X2APIC_API, KVM_X2APIC_API_USE_32BIT_IDS);
    if (!err)
        err = kvm_set_msr_filter(m);
    return err;
}

static int kvm_vm_create(struct vm *vm, const struct engine_options *opt)
{
    struct kvm_machine *m;
    char why[160];
    int sys, err;

    (void)opt; /* they are bt's */
    sys = open_kvm(why, sizeof(why));
    if (sys < 0) {
        log_error("engine kvm: %s", why);
        return sys;
    }
    m = calloc(1, sizeof(*m));
    if (!m) {
        close(sys);
        return -ENOMEM;
    }
    m->vm = vm;
    m->fd = -1;
    err = kvm_irqfds_create(m);
    if (!err)
        err = set_up(m, sys);
    close(sys);
    if (err) {
        free_machine(m);
        return err;
    }
    vm->engine_vm = m;
    return 0;
}

static void kvm_vm_destroy(struct vm *vm)
{
    free_machine(vm->engine_vm);
    vm->engine_vm = NULL;
}

int kvm_put_slot(struct kvm_machine *m, unsigned slot, u32 flags)
{
    const struct mem_slot *s = &m->vm->mem.slot[slot];
    struct kvm_userspace_memory_region r = {
        .slot = slot,
        .flags = (s->readonly ? KVM_MEM_READONLY : 0) | flags,
        .guest_phys_addr = s->gpa,
        .memory_size = s->size,
        .userspace_addr = (u64)(uintptr_t)s->host,
    };

    return kvm_ioctl(m->fd, KVM_SET_USER_MEMORY_REGION, &r);
}

static int kvm_memory_changed(struct vm *vm)
{
    struct kvm_machine *m = vm->engine_vm;

    for (; m->nslots < vm->mem.n; m->nslots++) {
        int err = kvm_put_slot(m, m->nslots, 0);

        if (err)
            return err;
    }
    return 0;
}

static int kvm_doorbell(struct vm *vm, gpa_t a, int eventfd, bool on)
{
    struct kvm_machine *m = vm->engine_vm;
    struct kvm_ioeventfd e = {
        .addr = a.v, .fd = eventfd, .flags = on ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN};

    return kvm_ioctl(m->fd, KVM_IOEVENTFD, &e); /* of no length: of any */
}

static void kvm_vcpu_destroy(struct vcpu *v)
{
    struct kvm_cpu *c = v->engine_vcpu;

    if (!c)
        return;
    kvm_interp_destroy(c);
    free(c->xsave);
    if (c->run)
        munmap(c->run, c->m->run_size);
    if (c->fd >= 0)
        close(c->fd);
    if (c->m->ncpus && c->m->cpu[c->m->ncpus - 1] == c)
        c->m->ncpus--;
    free(c);
    v->engine_vcpu = NULL;
    v->tsc_offset = NULL;
}

static int open_vcpu(struct kvm_cpu *c)
{
    struct kvm_enable_cap pv = {.cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID, .args = {1}};
    void *run;
    int err;

    c->fd = kvm_ioctl_int(c->m->fd, KVM_CREATE_VCPU, c->v->id);
    if (c->fd < 0)
        return c->fd;
    fcntl(c->fd, F_SETFD, FD_CLOEXEC);
    run = mmap(NULL, c->m->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
    if (run == MAP_FAILED)
        return -errno;
    c->run = run;
    if (c->m->xsave_size > X86_XSAVE_SIZE) {
        c->xsave = calloc(1, c->m->xsave_size);
        if (!c->xsave)
            return -ENOMEM;
    }
    err = kvm_set_cpuid(c);
    /* No hypercall but those CPUID names: none. */
    if (!err)
        err = kvm_ioctl(c->fd, KVM_ENABLE_CAP, &pv);
    if (!err && !c->v->id)
        err = kvm_find_hw_msrs(c->m, c);
    return err;
}

static int kvm_vcpu_create(struct vcpu *v)
{
    struct kvm_machine *m = v->vm->engine_vm;
    struct kvm_cpu *c = aligned_alloc(64, align_up(sizeof(*c), 64));
    int err;

    if (!c)
        return -ENOMEM;
    memset(c, 0, sizeof(*c));
    c->v = v;
    c->m = m;
    c->fd = -1;
    v->engine_vcpu = c;
    err = open_vcpu(c);
    if (!err)
        err = kvm_interp_create(c);
    if (!err)
        err = kvm_fetch_sregs(c); /* for the APIC's part */
    if (!err) {
        x86_state_reset(&c->s, v->vm->cpu_model.signature, v->vm->read_tsc());
        err = kvm_put_state(c);
    }
    if (err) {
        kvm_vcpu_destroy(v);
        return err;
    }
    v->tsc_offset = &c->s.tsc_offset;
    m->cpu[m->ncpus++] = c;
    return 0;
}

static void kvm_kick(struct vcpu *v)
{
    struct kvm_cpu *c = v->engine_vcpu;

    if (c && __atomic_load_n(&c->running, __ATOMIC_SEQ_CST))
        host_kick(c->thread);
}

static int kvm_get_state(struct vcpu *v, struct x86_vcpu_state *s)
{
    struct kvm_cpu *c = v->engine_vcpu;
    int err = kvm_fetch_state(c);

    memcpy(s, &c->s, sizeof(*s));
    return err;
}

static int kvm_set_state(struct vcpu *v, const struct x86_vcpu_state *s)
{
    struct kvm_cpu *c = v->engine_vcpu;

    int err = kvm_fetch_sregs(c); /* the APIC's part, which is not in *s, stays */

    memcpy(&c->s, s, sizeof(*s));
    return err ? err : kvm_put_state(c);
}

/* Nothing is derived from guest memory but what the CPU keeps coherent itself. */
static void kvm_memory_written(struct vm *vm, gpa_t a, u64 len)
{
    kvm_dirty_mark(vm->engine_vm, a.v, len);
}

static void kvm_add_tsc_offset(struct vcpu *v, u64 delta)
{
    struct kvm_cpu *c = v->engine_vcpu;

    c->s.tsc_offset += delta;
    if (kvm_put_tsc_offset(c))
        log_warn("cpu %u: KVM does not take the TSC's new offset", v->id);
}

static void kvm_stats(struct vm *vm, void (*line)(void *opaque, const char *name, u64 value),
                      void *opaque)
{
    struct kvm_machine *m = vm->engine_vm;
    struct kvm_stats sum = {0};
    u64 by_irqfd = 0;

    for (unsigned i = 0; i < m->ncpus; i++) {
        const struct kvm_stats *s = &m->cpu[i]->stats;

#define X(name) sum.name += s->name;
        KVM_STATS(X)
#undef X
    }
#define X(name) line(opaque, #name, sum.name);
    KVM_STATS(X)
#undef X
    for (unsigned i = 0; i < KVM_IRQFDS; i++)
        by_irqfd += m->irqfd[i].e.sent;
    line(opaque, "msi_by_irqfd", by_irqfd);
    line(opaque, "msi_by_call", m->msi_calls);
    line(opaque, "gsi_routings", m->routings);
}

const struct engine_ops kvm_engine_ops = {
    .name = "kvm",
    .probe = kvm_probe,
    .restrict_model = kvm_engine_restrict,
    .vm_create = kvm_vm_create,
    .vm_destroy = kvm_vm_destroy,
    .memory_changed = kvm_memory_changed,
    .vcpu_create = kvm_vcpu_create,
    .vcpu_destroy = kvm_vcpu_destroy,
    .run = kvm_engine_run,
    .kick = kvm_kick,
    .get_state = kvm_get_state,
    .set_state = kvm_set_state,
    .memory_written = kvm_memory_written,
    .dirty_log = kvm_dirty_log,
    .dirty_collect = kvm_dirty_collect,
    .add_tsc_offset = kvm_add_tsc_offset,
    .doorbell = kvm_doorbell,
    .apic = &kvm_apic_ops,
    .stats = kvm_stats,
};
