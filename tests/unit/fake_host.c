/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/listen.h"
#include "test.h"

static u64 clock_now;
static u64 timer_at = UINT64_MAX;
static void (*timer_fn)(void *);
static void *timer_opaque;

void (*fake_run)(struct vcpu *v, struct engine_exit *exit);
void (*fake_block)(void);
void (*fake_thread)(void (*fn)(void *), void *arg);
unsigned fake_loop_stops;

/* --- host.h ---------------------------------------------------------------------------------- */

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

/* opaque[0]: held. A lock taken twice by the one thread there is would hang for real. */
void host_mutex_init(struct host_mutex *m)
{
    memset(m, 0, sizeof(*m));
}

void host_mutex_lock(struct host_mutex *m)
{
    assert_int_equal(m->opaque[0], 0);
    m->opaque[0] = 1;
}

void host_mutex_unlock(struct host_mutex *m)
{
    assert_int_equal(m->opaque[0], 1);
    m->opaque[0] = 0;
}

/* Threads run one after another, to their end, when the loop would. */
static struct {
    void (*fn)(void *);
    void *arg;
} pending[VM_VCPUS_MAX];
static unsigned npending;

int host_thread_create(struct host_thread **t, const char *name, void (*fn)(void *), void *arg)
{
    (void)t;
    (void)name;
    if (fake_thread) {
        fake_thread(fn, arg);
        return 0;
    }
    assert_true(npending < VM_VCPUS_MAX);
    pending[npending].fn = fn;
    pending[npending++].arg = arg;
    return 0;
}

void host_thread_join(struct host_thread *t)
{
    (void)t;
}

void host_yield(void)
{
}

bool host_event_wait(struct host_event *e, u64 timeout_ns)
{
    if (!e->state && timeout_ns != UINT64_MAX)
        fake_advance(timeout_ns ? timeout_ns : 100); /* looking takes time */
    if (!e->state && timeout_ns == UINT64_MAX) {
        assert_non_null(fake_block);
        fake_block();
    }
    bool set = e->state;
    e->state = 0;
    return set;
}

void host_event_set(struct host_event *e)
{
    e->state = 1;
}

u64 host_monotonic_ns(void)
{
    return clock_now;
}

u64 host_realtime_ns(void)
{
    return FAKE_EPOCH_NS + clock_now;
}

u64 host_thread_cpu_ns(void)
{
    return clock_now;
}

u64 host_tsc_khz(void)
{
    return FAKE_TSC_KHZ;
}

static u64 fake_tsc(void)
{
    return clock_now * (FAKE_TSC_KHZ / 1000000);
}

void host_loop_timer(u64 monotonic_ns, void (*fn)(void *opaque), void *opaque)
{
    timer_at = monotonic_ns;
    timer_fn = fn;
    timer_opaque = opaque;
}

int host_loop_run(void)
{
    for (unsigned i = 0; i < npending; i++)
        pending[i].fn(pending[i].arg);
    npending = 0;
    return 0;
}

void host_loop_stop(void)
{
    fake_loop_stops++;
}

unsigned fake_discards;
void (*fake_in_discard)(void);

int host_ram_discard(void *ptr, u64 len)
{
    void (*fn)(void) = fake_in_discard;

    assert_int_equal(((u64)(uintptr_t)ptr | len) & ~PAGE_MASK, 0);
    fake_in_discard = NULL;
    if (fn)
        fn();
    memset(ptr, 0, len);
    fake_discards++;
    return 0;
}

int host_random(void *buf, size_t len)
{
    static u64 state = 88172645463325252ull; /* xorshift64 */

    for (size_t i = 0; i < len; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((u8 *)buf)[i] = (u8)(state >> 32);
    }
    return 0;
}

/* --- work for later: on the test's thread, when it says so --------------------------------------
 */

struct host_workers {
    void (*fn)(void *opaque);
    void *opaque;
    bool kicked;
};

#define WORKERS_MAX 16
static struct host_workers *workers[WORKERS_MAX];
static struct host_bh *bhs;

void host_bh_init(struct host_bh *bh, void (*fn)(void *opaque), void *opaque)
{
    *bh = (struct host_bh){.fn = fn, .opaque = opaque};
}

void host_bh_schedule(struct host_bh *bh)
{
    struct host_bh **at = &bhs;

    if (bh->scheduled)
        return;
    bh->scheduled = 1;
    bh->next = NULL;
    while (*at)
        at = &(*at)->next;
    *at = bh;
}

void host_bh_cancel(struct host_bh *bh)
{
    for (struct host_bh **at = &bhs; *at; at = &(*at)->next)
        if (*at == bh) {
            *at = bh->next;
            bh->scheduled = 0;
            return;
        }
}

int host_workers_create(struct host_workers **w, const char *name, unsigned threads,
                        void (*fn)(void *opaque), void *opaque)
{
    (void)name;
    (void)threads;
    *w = calloc(1, sizeof(**w));
    assert_non_null(*w);
    **w = (struct host_workers){.fn = fn, .opaque = opaque};
    for (unsigned i = 0; i < WORKERS_MAX; i++)
        if (!workers[i]) {
            workers[i] = *w;
            return 0;
        }
    fail_msg("too many workers");
    return -1;
}

void host_workers_kick(struct host_workers *w)
{
    w->kicked = true;
}

int host_workers_event(const struct host_workers *w)
{
    for (unsigned i = 0; i < WORKERS_MAX; i++)
        if (workers[i] == w)
            return FAKE_WORKERS_EVENT + (int)i;
    return -1;
}

void (*fake_added)(int fd);

void host_eventfd_add(int fd)
{
    assert_non_null(fake_added);
    fake_added(fd);
}

void fake_ring(int event)
{
    assert_in_range(event, FAKE_WORKERS_EVENT, FAKE_WORKERS_EVENT + WORKERS_MAX - 1);
    assert_non_null(workers[event - FAKE_WORKERS_EVENT]);
    workers[event - FAKE_WORKERS_EVENT]->kicked = true;
}

void host_workers_destroy(struct host_workers *w)
{
    for (unsigned i = 0; i < WORKERS_MAX; i++)
        if (w && workers[i] == w)
            workers[i] = NULL;
    free(w);
}

/* One piece of work, if there is any. */
static bool settle_one(void)
{
    struct host_bh *bh = bhs;

    if (bh) {
        bhs = bh->next;
        bh->scheduled = 0;
        bh->fn(bh->opaque);
        return true;
    }
    for (unsigned i = 0; i < WORKERS_MAX; i++)
        if (workers[i] && workers[i]->kicked) {
            workers[i]->kicked = false;
            workers[i]->fn(workers[i]->opaque);
            return true;
        }
    return false;
}

unsigned fake_settle(void)
{
    unsigned n = 0;

    while (settle_one())
        assert_true(n++ < 1000000); /* work that never ends */
    return n;
}

u64 fake_now(void)
{
    return clock_now;
}

void fake_advance(u64 ns)
{
    u64 end = clock_now + ns;

    while (timer_at <= end) {
        if (timer_at > clock_now)
            clock_now = timer_at;
        timer_at = UINT64_MAX;
        timer_fn(timer_opaque);
    }
    clock_now = end;
}

/* --- the engine ----------------------------------------------------------------------------------
 */

static struct fake_vcpu *fake(struct vcpu *v)
{
    return container_of(v, struct fake_vcpu, v);
}

static int vcpu_create(struct vcpu *v)
{
    x86_state_reset(&fake(v)->s, v->vm->cpu_model.signature, v->vm->read_tsc());
    v->tsc_offset = &fake(v)->s.tsc_offset;
    return 0;
}

static void vcpu_destroy(struct vcpu *v)
{
    (void)v;
}

static void run(struct vcpu *v, struct engine_exit *exit)
{
    exit->text[0] = '\0';
    exit->kind = ENGINE_EXIT_HLT;
    if (fake_run)
        fake_run(v, exit);
}

static void kick(struct vcpu *v)
{
    fake(v)->kicks++;
}

static int get_state(struct vcpu *v, struct x86_vcpu_state *s)
{
    *s = fake(v)->s;
    return 0;
}

static int set_state(struct vcpu *v, const struct x86_vcpu_state *s)
{
    fake(v)->s = *s;
    return 0;
}

static void memory_written(struct vm *vm, gpa_t a, u64 len)
{
    struct machine *m = container_of(vm, struct machine, vm);

    m->written_gpa = a.v;
    m->written_len = len;
    if (m->watched_gpa - a.v < len)
        m->watched++;
}

static int set_debug(struct vm *vm, const struct debug_points *p)
{
    struct machine *m = container_of(vm, struct machine, vm);

    m->points = *p;
    m->debug_sets++;
    return 0;
}

const struct engine_ops fake_engine_ops = {
    .name = "fake",
    .vcpu_create = vcpu_create,
    .vcpu_destroy = vcpu_destroy,
    .run = run,
    .kick = kick,
    .get_state = get_state,
    .set_state = set_state,
    .memory_written = memory_written,
    .set_debug = set_debug,
};

/* --- the machine
 * ------------------------------------------------------------------------------------ */

/* Of the machine that went last: fuzzers make thousands of them a second, and fresh memory is slow.
 */
static u8 *spare_ram;

struct machine *machine_new(unsigned ncpus)
{
    struct machine *m = aligned_alloc(64, align_up(sizeof(*m), 64));

    assert_non_null(m);
    memset(m, 0, sizeof(*m));
    clock_now = 5000000000ull;
    timer_at = UINT64_MAX;
    fake_run = NULL;
    fake_block = NULL;
    fake_thread = NULL;
    fake_loop_stops = 0;
    bhs = NULL;
    vm_init(&m->vm, &fake_engine_ops);
    m->vm.read_tsc = fake_tsc;
    m->vm.cpu_model.tsc_khz = FAKE_TSC_KHZ;
    m->vm.cpu_model.phys_bits = 40;
    m->vm.cpu_model.signature = 0x00a20f10;
    m->ram = spare_ram ? spare_ram : aligned_alloc(PAGE_SIZE, FAKE_RAM_SIZE);
    spare_ram = NULL;
    assert_non_null(m->ram);
    memset(m->ram, 0, FAKE_RAM_SIZE);
    assert_int_equal(guest_mem_add(&m->vm.mem, gpa(0), FAKE_RAM_SIZE, m->ram, false), 0);
    for (unsigned i = 0; i < ncpus; i++)
        assert_int_equal(vm_add_vcpu(&m->vm, &m->cpu[i].v), 0);
    return m;
}

void machine_free(struct machine *m)
{
    vm_destroy(&m->vm);
    free(spare_ram);
    spare_ram = m->ram;
    free(m);
}

u32 fake_events(struct machine *m, unsigned cpu)
{
    return __atomic_exchange_n(&m->cpu[cpu].v.events, 0, __ATOMIC_SEQ_CST);
}

u8 inb(struct machine *m, u16 port)
{
    return (u8)vm_pio_read(&m->vm, port, 1);
}

void outb(struct machine *m, u16 port, u8 val)
{
    vm_pio_write(&m->vm, port, 1, val);
}

static void probe_set(void *opaque, unsigned n, bool level)
{
    struct probe *p = opaque;

    (void)n;
    if (level && !p->level)
        p->rises++;
    p->level = level;
}

struct irq_line probe_line(struct probe *p)
{
    return (struct irq_line){.set = probe_set, .opaque = p};
}

int host_listen(const char *path, bool private, int backlog, char *err, size_t err_size)
{
    (void)path;
    (void)private;
    (void)backlog;
    (void)err;
    (void)err_size;
    return -ENOSYS;
}

int host_listen_check(const char *path, char *err, size_t err_size)
{
    (void)path;
    (void)err;
    (void)err_size;
    return -ENOSYS;
}
