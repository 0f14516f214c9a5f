/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/chipset/pvclock.h"

#define MSR_WALL_CLOCK 0x11u
#define MSR_SYSTEM_TIME 0x12u
#define MSR_WALL_CLOCK_NEW 0x4b564d00u
#define MSR_SYSTEM_TIME_NEW 0x4b564d01u

#define SYSTEM_TIME_ENABLE BIT64(0)
#define FLAG_TSC_STABLE 0x01

#define NS_PER_S 1000000000ull

/* struct pvclock_vcpu_time_info: the guest's ABI. */
struct time_info {
    u32 version; /* odd while the rest changes */
    u32 pad0;
    u64 tsc_timestamp;
    u64 system_time;
    u32 tsc_to_system_mul;
    s8 tsc_shift;
    u8 flags;
    u8 pad[2];
};
_Static_assert(sizeof(struct time_info) == 32, "msr.rst, MSR_KVM_SYSTEM_TIME_NEW");

struct wall_clock {
    u32 version, sec, nsec;
};
_Static_assert(sizeof(struct wall_clock) == 12, "msr.rst, MSR_KVM_WALL_CLOCK_NEW");

struct pvclock {
    struct device dev;
    struct vm *vm;
    /* One instant in both clocks, the same for all vCPUs: their times then agree exactly. */
    u64 ref_tsc, ref_ns;
    u32 mul;
    s8 shift;
    u64 wall_msr;
    u64 time_msr[VM_VCPUS_MAX];
};

/* ns = (tsc << shift) * mul >> 32, with mul as large as fits (shift < 0: to the right). */
static void scale(struct pvclock *p, u64 hz)
{
    u64 ns = NS_PER_S, tsc = hz;
    int shift = 0;

    while (tsc > 2 * ns || tsc >> 32) {
        tsc >>= 1;
        shift--;
    }
    while (tsc <= ns) {
        if (tsc & BIT64(31))
            ns >>= 1;
        else
            tsc <<= 1;
        shift++;
    }
    p->mul = (u32)((ns << 32) / tsc);
    p->shift = (s8)shift;
}

/* A structure that begins with its version, readable at any moment: version odd, the rest, version
 * even. VM lock held. */
static int publish(struct pvclock *p, u64 addr, u32 *s, u64 size)
{
    u32 version;

    if (vm_dma_read(p->vm, gpa(addr), &version, sizeof(version)))
        return -1;
    version |= 1; /* an odd one there already is garbage, not a writer */
    if (vm_dma_write(p->vm, gpa(addr), &version, sizeof(version)))
        return -1;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (vm_dma_write(p->vm, gpa(addr + 4), s + 1, size - 4))
        return -1;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    version++;
    return vm_dma_write(p->vm, gpa(addr), &version, sizeof(version));
}

static int write_system_time(struct pvclock *p, struct vcpu *v, u64 val)
{
    struct time_info t = {
        .tsc_timestamp = p->ref_tsc + vcpu_tsc_offset(v) + p->vm->tsc_lost,
        .system_time = p->ref_ns,
        .tsc_to_system_mul = p->mul,
        .tsc_shift = p->shift,
        .flags = FLAG_TSC_STABLE,
    };
    u64 addr = val & ~SYSTEM_TIME_ENABLE;
    int err = 0;

    if (val & SYSTEM_TIME_ENABLE) {
        if (addr & 3)
            return -1;
        vm_lock(p->vm);
        err = publish(p, addr, &t.version, sizeof(t));
        vm_unlock(p->vm);
    }
    if (!err)
        p->time_msr[v->id] = val;
    return err ? -1 : 0;
}

static int write_wall_clock(struct pvclock *p, u64 addr)
{
    u64 boot = host_realtime_ns() - vm_clock_ns(p->vm);
    struct wall_clock w = {.sec = (u32)(boot / NS_PER_S), .nsec = (u32)(boot % NS_PER_S)};
    int err;

    if (addr & 3)
        return -1;
    vm_lock(p->vm);
    err = publish(p, addr, &w.version, sizeof(w));
    vm_unlock(p->vm);
    if (!err)
        __atomic_store_n(&p->wall_msr, addr, __ATOMIC_RELAXED);
    return err ? -1 : 0;
}

static int msr_read(void *opaque, struct vcpu *v, u32 msr, u64 *val)
{
    struct pvclock *p = opaque;

    if (msr == MSR_WALL_CLOCK || msr == MSR_WALL_CLOCK_NEW)
        *val = __atomic_load_n(&p->wall_msr, __ATOMIC_RELAXED);
    else
        *val = p->time_msr[v->id];
    return 0;
}

static int msr_write(void *opaque, struct vcpu *v, u32 msr, u64 val)
{
    if (msr == MSR_WALL_CLOCK || msr == MSR_WALL_CLOCK_NEW)
        return write_wall_clock(opaque, val);
    return write_system_time(opaque, v, val);
}

static const struct msr_ops msrs = {.read = msr_read, .write = msr_write};

#define STATE_VERSION 1

/*
 * What guests read is in their memory and stays right: TSC and clock go on from where they stood.
 * The instant is kept as its distance in ticks the guests have counted.
 */
static int save(const struct device *d, struct stream *out, const char **why)
{
    const struct pvclock *p = container_of(d, struct pvclock, dev);

    (void)why;
    stream_put_u16(out, STATE_VERSION);
    stream_put_u64(out, p->vm->tsc_stopped - p->vm->tsc_lost - p->ref_tsc);
    stream_put_u64(out, p->ref_ns);
    stream_put_u32(out, p->mul);
    stream_put_u8(out, (u8)p->shift);
    stream_put_u64(out, p->wall_msr);
    stream_put_u8(out, (u8)p->vm->nvcpus);
    for (unsigned i = 0; i < p->vm->nvcpus; i++)
        stream_put_u64(out, p->time_msr[i]);
    return out->error;
}

/* The scale is loaded and not made from this host's idea of the frequency: all vCPUs have one. */
static int load(struct device *d, struct stream *in)
{
    struct pvclock *p = container_of(d, struct pvclock, dev);

    stream_expect(in, stream_get_u16(in) == STATE_VERSION);
    p->ref_tsc = p->vm->tsc_stopped - p->vm->tsc_lost - stream_get_u64(in);
    p->ref_ns = stream_get_u64(in);
    p->mul = stream_get_u32(in);
    p->shift = (s8)stream_get_u8(in);
    stream_expect(in, p->shift >= -31 && p->shift <= 31);
    p->wall_msr = stream_get_u64(in);
    stream_expect(in, !(p->wall_msr & 3));
    stream_expect(in, stream_get_u8(in) == p->vm->nvcpus);
    for (unsigned i = 0; i < p->vm->nvcpus; i++) {
        p->time_msr[i] = stream_get_u64(in);
        stream_expect(in, !(p->time_msr[i] & SYSTEM_TIME_ENABLE) || !(p->time_msr[i] & 2));
    }
    return in->error;
}

static void destroy(struct device *d)
{
    host_free(container_of(d, struct pvclock, dev));
}

static const struct device_ops ops = {
    .name = "pvclock", .save = save, .load = load, .destroy = destroy};

struct device *pvclock_create(struct vm *vm)
{
    struct pvclock *p;

    if (!vm->cpu_model.tsc_khz)
        return NULL;
    p = host_zalloc(sizeof(*p));
    if (!p)
        return NULL;
    p->dev.ops = &ops;
    p->vm = vm;
    p->ref_ns = vm_clock_ns(vm);
    p->ref_tsc = vm->read_tsc();
    scale(p, (u64)vm->cpu_model.tsc_khz * 1000);
    if (vm_add_msr_range(vm, MSR_WALL_CLOCK, MSR_SYSTEM_TIME, &msrs, p) ||
        vm_add_msr_range(vm, MSR_WALL_CLOCK_NEW, MSR_SYSTEM_TIME_NEW, &msrs, p)) {
        host_free(p);
        return NULL;
    }
    vm_add_device(vm, &p->dev);
    return &p->dev;
}
