/* SPDX-License-Identifier: Apache-2.0 */
/* From a file to a machine that goes on. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/block/lock.h"
#include "base/log.h"
#include "board/host_cpu.h"
#include "board/pc_priv.h"
#include "board/pc_save.h"
#include "board/saved_priv.h"
#include "core/cpu_state.h"
#include "core/state.h"
#include "dev/chipset/vmgenid.h"
#include "x86/cpu_features.h"

/* The checksums of so much memory as takes this long are compared before the guest goes on; of the
 * rest, beside it. */
#define VERIFY_FIRST_NS 20000000u
#define VERIFY_FIRST (128u << 20) /* however long it takes */
#define VERIFY_STEP_NS 10000000u

/* Of options: more than there are, each as often as it can be given. */
#define LINES_MAX 4096

static int fail(struct pc *pc, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static int fail(struct pc *pc, const char *fmt, ...)
{
    int n = snprintf(pc->err, pc->err_size, "%s: ", pc->ends.saved->path);
    va_list ap;

    va_start(ap, fmt);
    if (n >= 0 && (size_t)n < pc->err_size)
        vsnprintf(pc->err + n, pc->err_size - (size_t)n, fmt, ap);
    va_end(ap);
    return -EINVAL;
}

static int no_state(struct pc *pc, const char *what)
{
    return fail(pc, "the state of %s is none this version can use", what);
}

/* --- the options --- */

/* Text inside a section, which gets a NUL in the place of what follows (a length of the next text,
 * read already) or of the spare byte at the end. NULL: there is none. */
static const char *get_text(struct stream *in)
{
    u32 n = stream_get_u32(in);
    char *text;

    if (in->error || n > in->cap - in->pos || memchr(in->buf + in->pos, 0, n))
        return NULL;
    text = malloc((size_t)n + 1);
    if (text) {
        stream_get(in, text, n);
        text[n] = 0;
    }
    return text;
}

static bool read_options(struct pc_saved *s)
{
    struct stream in;

    if (!snapshot_section(s->file, SAVE_OPTIONS, 0, &in) || stream_get_u16(&in) != SAVE_VERSION)
        return false;
    while (in.pos < in.cap) {
        struct config_line *grown =
            s->nlines == LINES_MAX ? NULL : realloc(s->line, (s->nlines + 1) * sizeof(*grown));

        if (!grown)
            return false;
        s->line = grown;
        s->line[s->nlines].name = get_text(&in);
        s->line[s->nlines].value = s->line[s->nlines].name ? get_text(&in) : NULL;
        if (!s->line[s->nlines++].value)
            return false;
    }
    return true;
}

struct pc_saved *pc_saved_open(const char *path, char *err, size_t err_size)
{
    struct pc_saved *s = calloc(1, sizeof(*s));

    if (!s || !(s->path = strdup(path))) {
        snprintf(err, err_size, "out of memory");
        free(s);
        return NULL;
    }
    s->file = snapshot_open(path, err, err_size);
    /* It is read while the guest runs: nobody of ours makes it a port's output or a disk. */
    if (s->file && block_lock(snapshot_fd(s->file), true) == -EBUSY) {
        snprintf(err, err_size, "%s: somebody is writing to it", path);
        pc_saved_close(s);
        return NULL;
    }
    if (s->file && read_options(s))
        return s;
    if (s->file)
        snprintf(err, err_size, "%s: its options are none this version can use", path);
    pc_saved_close(s);
    return NULL;
}

void pc_saved_close(struct pc_saved *s)
{
    if (!s)
        return;
    __atomic_store_n(&s->stop, 1, __ATOMIC_RELEASE);
    if (s->verifier)
        host_thread_join(s->verifier);
    for (size_t i = 0; i < s->nlines; i++) {
        free((char *)(uintptr_t)s->line[i].name);
        free((char *)(uintptr_t)s->line[i].value);
    }
    free(s->line);
    snapshot_close(s->file);
    free(s->path);
    free(s);
}

const struct config_line *pc_saved_options(const struct pc_saved *s, size_t *n)
{
    *n = s->nlines;
    return s->line;
}

/* --- the CPU --- */

struct missing {
    char text[300];
    size_t len;
};

static void add_missing(void *opaque, const char *feature)
{
    struct missing *m = opaque;

    m->len += (size_t)snprintf(m->text + m->len, sizeof(m->text) - m->len, "%s%s",
                               m->len ? ", " : "", feature);
    if (m->len >= sizeof(m->text))
        m->len = sizeof(m->text) - 1;
}

static int load_model(struct pc *pc, struct x86_cpu_model *m)
{
    struct stream in;

    if (snapshot_section(pc->ends.saved->file, SAVE_CPU, 0, &in) && !x86_cpu_model_load(m, &in) &&
        in.pos == in.cap)
        return 0;
    return no_state(pc, "the CPU");
}

int pc_restore_model(struct pc *pc)
{
    struct x86_cpu_model *want = calloc(1, sizeof(*want));
    struct missing m = {.len = 0};
    int r = want ? load_model(pc, want) : fail(pc, "out of memory");

    if (!r) {
        x86_cpu_model_missing(want, &pc->vm.cpu_model, add_missing, &m);
        if (m.len)
            r = fail(pc, "engine %s does not give the guest here what its CPU had: %s",
                     pc->vm.engine->name, m.text);
    }
    if (!r)
        pc->vm.cpu_model = *want;
    free(want);
    return r;
}

static void count(void *opaque, const char *feature)
{
    (void)feature;
    ++*(unsigned *)opaque;
}

bool pc_restore_fits(void *opaque, const struct engine_ops *ops, char *why, size_t why_size)
{
    struct pc *pc = opaque;
    struct x86_cpu_model *m = calloc(2, sizeof(*m));
    unsigned lacks = 0;

    if (m && !load_model(pc, m)) {
        host_cpu_model_every(m + 1, (unsigned)pc->cfg->cpus, pc->cfg->hide_kvm);
        if (!ops->restrict_model || !ops->restrict_model(m + 1))
            x86_cpu_model_missing(m, m + 1, count, &lacks);
    }
    free(m);
    snprintf(why, why_size, "it does not give the guest here what its CPU had");
    return !lacks;
}

/* --- memory --- */

int pc_restore_memory(struct pc *pc)
{
    struct snapshot *file = pc->ends.saved->file;

    if (snapshot_ram_size(file) != pc->ram.size)
        return fail(pc, "it has not as much memory as its options say");
    return snapshot_map(file, &pc->ram, pc->err, pc->err_size);
}

int pc_restore_check(struct pc *pc)
{
    struct snapshot *file = pc->ends.saved ? pc->ends.saved->file : NULL;
    int r = file ? snapshot_verify(file, VERIFY_FIRST_NS, VERIFY_FIRST, pc->err, pc->err_size) : 0;

    return r < 0 ? r : 0;
}

static void verify(void *opaque)
{
    struct pc *pc = opaque;
    struct pc_saved *s = pc->ends.saved;
    char err[512];
    int r = 0;

    while (!r && !__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE))
        r = snapshot_verify(s->file, VERIFY_STEP_NS, 1, err, sizeof(err));
    /* Nothing of the guest's is to blame: no registers. */
    if (r < 0) {
        log_error("%s", err);
        vm_stop(&pc->vm, VM_QUIT, PC_EXIT_FAILURE, NULL);
    }
}

int pc_restore_verify(struct pc *pc)
{
    if (!pc->ends.saved || snapshot_verified(pc->ends.saved->file))
        return 0;
    return host_thread_create(&pc->ends.saved->verifier, "verify", verify, pc);
}

void pc_restore_verified(struct pc *pc)
{
    struct pc_saved *s = pc->ends.saved;

    if (s && s->verifier)
        host_thread_join(s->verifier);
    if (s)
        s->verifier = NULL;
}

/* --- vCPUs and devices --- */

static int restore_clock(struct pc *pc)
{
    struct stream in;
    const char *text[2];
    u64 ns;
    u32 n;
    bool ok;

    if (!snapshot_section(pc->ends.saved->file, SAVE_MACHINE, 0, &in) ||
        stream_get_u16(&in) != SAVE_VERSION)
        return no_state(pc, "the machine");
    text[0] = get_text(&in); /* who wrote it, and under which engine: for people */
    text[1] = get_text(&in);
    ns = stream_get_u64(&in);
    stream_get_u64(&in);
    n = stream_get_u32(&in);
    ok =
        text[0] && text[1] && !in.error && in.pos == in.cap && ns < INT64_MAX && n == pc->vm.nvcpus;
    free((char *)(uintptr_t)text[0]);
    free((char *)(uintptr_t)text[1]);
    if (!ok)
        return no_state(pc, "the machine");
    vm_clock_set(&pc->vm, ns);
    return 0;
}

/* They may not have been written to since: the guest has some of their contents in its memory. */
static int check_disks(struct pc *pc)
{
    struct stream in;
    u32 saved;

    if (!snapshot_section(pc->ends.saved->file, SAVE_DISKS, 0, &in) ||
        stream_get_u16(&in) != SAVE_VERSION)
        return no_state(pc, "the disks");
    saved = stream_get_u32(&in);
    if (saved != pc_disk_count(pc))
        return fail(pc, "the machine was saved with %u disk(s), and %u are given", saved,
                    pc_disk_count(pc));
    for (unsigned i = 0; i < pc_disk_count(pc); i++) {
        struct blockdev *b = pc_disk_dev(pc, i);
        u64 size = stream_get_u64(&in), file = stream_get_u64(&in), ns = stream_get_u64(&in);
        struct block_stamp now;

        if (size != b->size)
            return fail(pc, "disk %s has %llu bytes, it had %llu", pc->cfg->disk.item[i],
                        (unsigned long long)b->size, (unsigned long long)size);
        if (pc->cfg->disk_anew)
            continue;
        if (!b->ops->stamp(b, &now) && now.device)
            return fail(pc,
                        "disk %s is a block device, which is not taken from the file: give it with "
                        "--disk",
                        pc->cfg->disk.item[i]);
        if (b->ops->stamp(b, &now) || now.size != file || now.changed_ns != ns)
            return fail(pc,
                        "disk %s was written to after the machine was saved; given with --disk it "
                        "is taken as it is, for better or worse",
                        pc->cfg->disk.item[i]);
    }
    return in.error || in.pos != in.cap ? no_state(pc, "the disks") : 0;
}

static int load_devices(struct pc *pc)
{
    struct vm *vm = &pc->vm;

    for (struct device *d = vm->devices; d; d = d->next) {
        struct stream in;
        char name[64];
        int r;

        if (!d->ops->load)
            continue;
        snprintf(name, sizeof(name), "%s %u", d->ops->name, d->instance);
        if (!snapshot_section(pc->ends.saved->file, d->ops->name, d->instance, &in))
            return fail(pc,
                        "the saved machine had no device %s; of what is given again there must be "
                        "as many as there were",
                        name);
        vm_lock(vm);
        r = d->ops->load(d, &in);
        vm_unlock(vm);
        if (r || in.error || in.pos != in.cap)
            return fail(pc,
                        "the state of %s is of another version, or of a device that was not as it "
                        "is here: give it with the options it had",
                        name);
    }
    return 0;
}

static int load_vcpus(struct pc *pc)
{
    struct vm *vm = &pc->vm;

    for (unsigned i = 0; i < vm->nvcpus; i++) {
        struct stream in;
        int r;

        if (!snapshot_section(pc->ends.saved->file, SAVE_VCPU, i, &in) ||
            vcpu_load(vm->vcpu[i], &pc->start, &in) || in.pos != in.cap)
            return no_state(pc, "a virtual CPU");
        r = vm->engine->set_state(vm->vcpu[i], &pc->start);
        if (r)
            return fail(pc, "engine %s cannot take over the state of a virtual CPU: %s",
                        vm->engine->name, strerror(-r));
    }
    return 0;
}

/* A device less, and those behind it are in slots where the guest does not look for them. */
static int check_all_used(struct pc *pc)
{
    u32 instance;
    const char *name = snapshot_unused(pc->ends.saved->file, &instance);

    return name ? fail(pc,
                       "the saved machine had a device that this one has not: %s %u; of what is "
                       "given again there must be as many as there were",
                       name, instance)
                : 0;
}

int pc_restore_state(struct pc *pc)
{
    int r = check_disks(pc);

    if (r)
        return r;
    vm_pause(&pc->vm);
    r = restore_clock(pc);
    if (!r)
        r = load_devices(pc);
    if (!r)
        r = load_vcpus(pc);
    return r ? r : check_all_used(pc);
}

void pc_restore_resume(struct pc *pc)
{
    struct vm *vm = &pc->vm;
    int r;

    if (!pc->ends.saved)
        return;
    vm_lock(vm);
    for (struct device *d = vm->devices; d; d = d->next)
        if (d->ops->loaded)
            d->ops->loaded(d);
    /* It has a new ID since it was built, and is told now. */
    r = vmgenid_renew(pc->vmgenid);
    vm_unlock(vm);
    if (r)
        vm_stop(vm, VM_CRASH, PC_EXIT_FAILURE, "no random numbers for the machine's generation ID");
    vm_resume(vm);
    log_debug("the machine goes on, %llu us after it began to be built",
              (unsigned long long)(host_monotonic_ns() - pc->started) / 1000);
}
