/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whatever a debugger sends. The first byte of the input says whether the rest is the stream as it
 * is, or lines that get a good frame each, so that the fuzzer need not find checksums. The machine
 * has an engine that only keeps states; whenever it is let go, some vCPU stops at once.
 */
#include <stdlib.h>
#include <string.h>

#include "core/debug.h"
#include "core/vcpu_priv.h"
#include "debug/gdb/packet.h"
#include "debug/gdb/session.h"

#define RAM (256 * 1024)

/* --- a host without threads ------------------------------------------------------------------- */

static struct host_bh *scheduled;
static u64 now = 1000;

void *host_zalloc(u64 size)
{
    return calloc(1, size);
}

void host_free(void *p)
{
    free(p);
}

void host_populate(void *p, u64 len, bool write)
{
    (void)p;
    (void)len;
    (void)write;
}

bool host_populate_later(void *p, u64 len, bool write)
{
    host_populate(p, len, write);
    return false;
}

int host_populator_start(void)
{
    return 0;
}

void host_populator_stop(void)
{
}

void host_mutex_init(struct host_mutex *m)
{
    memset(m, 0, sizeof(*m));
}

void host_mutex_lock(struct host_mutex *m)
{
    (void)m;
}

void host_mutex_unlock(struct host_mutex *m)
{
    (void)m;
}

bool host_event_wait(struct host_event *e, u64 timeout_ns)
{
    (void)e;
    (void)timeout_ns;
    abort(); /* nobody would wake us */
}

void host_event_set(struct host_event *e)
{
    e->state = 1;
}

u64 host_monotonic_ns(void)
{
    return now += 1000;
}

void host_bh_init(struct host_bh *bh, void (*fn)(void *opaque), void *opaque)
{
    *bh = (struct host_bh){.fn = fn, .opaque = opaque};
}

void host_bh_schedule(struct host_bh *bh)
{
    scheduled = bh; /* the debugger's is the only one */
}

void host_bh_cancel(struct host_bh *bh)
{
    if (scheduled == bh)
        scheduled = NULL;
}

void host_loop_timer(u64 monotonic_ns, void (*fn)(void *opaque), void *opaque)
{
    (void)monotonic_ns;
    (void)fn;
    (void)opaque;
}

int host_loop_run(void)
{
    return 0;
}

void host_loop_stop(void)
{
}

int host_thread_create(struct host_thread **t, const char *name, void (*fn)(void *), void *arg)
{
    (void)t;
    (void)name;
    (void)fn;
    (void)arg;
    return -1;
}

void host_thread_join(struct host_thread *t)
{
    (void)t;
}

/* --- an engine that keeps states -------------------------------------------------------------- */

static struct x86_vcpu_state states[2];
static struct debug_points points;

static int vcpu_create(struct vcpu *v)
{
    x86_state_reset(&states[v->id], v->vm->cpu_model.signature, 0);
    return 0;
}

static void vcpu_destroy(struct vcpu *v)
{
    (void)v;
}

static void kick(struct vcpu *v)
{
    (void)v;
}

static int get_state(struct vcpu *v, struct x86_vcpu_state *s)
{
    *s = states[v->id];
    return 0;
}

static int set_state(struct vcpu *v, const struct x86_vcpu_state *s)
{
    states[v->id] = *s;
    return 0;
}

static int set_debug(struct vm *vm, const struct debug_points *p)
{
    (void)vm;
    for (unsigned i = 1; i < p->nbreaks; i++)
        if (p->breaks[i - 1] >= p->breaks[i])
            abort();
    points = *p;
    return 0;
}

static const struct engine_ops ops = {
    .name = "none",
    .vcpu_create = vcpu_create,
    .vcpu_destroy = vcpu_destroy,
    .kick = kick,
    .get_state = get_state,
    .set_state = set_state,
    .set_debug = set_debug,
};

/* --- the session ------------------------------------------------------------------------------ */

static unsigned nsent;

static void on_send(void *opaque, const void *buf, size_t n)
{
    static volatile u8 sum;

    (void)opaque;
    for (size_t i = 0; i < n; i++)
        sum = (u8)(sum + ((const u8 *)buf)[i]);
    nsent++;
}

static void on_done(void *opaque)
{
    (void)opaque;
}

static void on_dump(FILE *out, unsigned n, const struct x86_vcpu_state *s,
                    const struct guest_mem *m)
{
    (void)m;
    fprintf(out, "%u: %llx\n", n, (unsigned long long)s->rip);
}

/* Something stops a machine that was let go. */
static void stop_again(struct vm *vm)
{
    struct debug_stop stop = {.reason = (enum debug_reason)(nsent % 4), .kind = DEBUG_WATCH_ACCESS};
    struct vcpu *v = vm->vcpu[nsent / 4 % vm->nvcpus];

    if (!vm->debug || !vm_debug_running(vm) || v->held)
        return;
    if (points.nbreaks)
        stop.addr = points.breaks[0];
    vcpu_debug_stopped(v, &stop);
    if (scheduled) {
        struct host_bh *bh = scheduled;

        scheduled = NULL;
        bh->fn(bh->opaque);
    }
}

static void feed_line(struct gdb_session *g, const u8 *line, size_t n)
{
    static const char hex[] = "0123456789abcdef";
    u8 sum = 0, tail[3];

    for (size_t i = 0; i < n; i++)
        sum = (u8)(sum + line[i]);
    tail[0] = '#';
    tail[1] = (u8)hex[sum >> 4];
    tail[2] = (u8)hex[sum & 15];
    gdb_session_input(g, (const u8 *)"$", 1);
    gdb_session_input(g, line, n);
    gdb_session_input(g, tail, sizeof(tail));
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    static struct vm vm;
    static struct vcpu vcpu[2];
    static u8 ram[RAM];
    struct gdb_session_config c = {.vm = &vm, .send = on_send, .done = on_done, .dump = on_dump};
    struct gdb_session *g;
    char err[100];

    if (!size)
        return 0;
    memset(&vm, 0, sizeof(vm));
    memset(vcpu, 0, sizeof(vcpu));
    scheduled = NULL;
    nsent = 0;
    vm_init(&vm, &ops);
    vm.cpu_model.phys_bits = 40;
    vm.cpu_model.xcr0_valid = 7;
    vm.cpu_model.entry[0] =
        (struct x86_cpuid_entry){.leaf = 0xd, .subleaf = 2, .has_subleaf = true, .ebx = 576};
    vm.cpu_model.n = 1;
    guest_mem_add(&vm.mem, gpa(0), RAM, ram, false);
    for (unsigned i = 0; i < 2; i++)
        vm_add_vcpu(&vm, &vcpu[i]);
    c.arch = data[0] & 2 ? GDB_I386 : GDB_X86_64;
    if (data[0] & 4) { /* long mode with page tables in RAM the debugger may change */
        states[0].cr0 |= CR0_PE | CR0_PG;
        states[0].cr4 |= CR4_PAE;
        states[0].efer |= EFER_LME | EFER_LMA;
        states[0].cr3 = 0x1000;
    }
    g = gdb_session_open(&c, err, sizeof(err));
    if (!g)
        abort();
    if (data[0] & 1) {
        gdb_session_input(g, data + 1, size - 1);
        stop_again(&vm);
    } else {
        for (size_t at = 1, n; at < size; at += n + 1) {
            const u8 *end = memchr(data + at, '\n', size - at);

            n = end ? (size_t)(end - (data + at)) : size - at;
            feed_line(g, data + at, n);
            stop_again(&vm);
        }
    }
    gdb_session_vm_ended(g, 0);
    gdb_session_close(g);
    if (vm.pauses || points.nbreaks || points.nwatches)
        abort();
    vm_destroy(&vm);
    return 0;
}
