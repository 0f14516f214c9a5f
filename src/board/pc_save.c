/* SPDX-License-Identifier: Apache-2.0 */
/* From a running machine to a file. */
#include "board/pc_save.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/block/block.h"
#include "board/pc_priv.h"
#include "board/saved_priv.h"
#include "core/cpu_state.h"
#include "core/state.h"
#include "snapshot/writer.h"

/* A device's, or another section's. */
#define STATE_MAX (1u << 20)

struct save {
    struct pc *pc;
    struct snapshot_writer *w;
    u8 *buf;
    struct stream out;
    const struct pc_save_options *opt;
    char *err;
    size_t err_size;
};

static void begin(struct save *s)
{
    stream_init(&s->out, s->buf, STATE_MAX);
}

static int end(struct save *s, const char *name, u32 instance)
{
    int r = s->out.error;

    return r ? r : snapshot_write_section(s->w, name, instance, s->buf, s->out.pos);
}

static int refuse(struct save *s, int r, const char *what, const char *why)
{
    snprintf(s->err, s->err_size, "%s%s%s", what, why ? ": " : "", why ? why : "");
    return r;
}

/* --- what is in flight --- */

/* Everything the guest was told about its disks is in their files, and closing them changes nothing
 * any more: with qcow2 the second flush writes what the first one found free. */
static int settle_disks(struct save *s)
{
    struct pc *pc = s->pc;

    for (unsigned i = 0; i < pc_disk_count(pc); i++) {
        struct blockdev *b = pc_disk_dev(pc, i);
        int r = b->ops->flush(b);

        if (!r)
            r = b->ops->flush(b);
        if (r)
            return refuse(s, r, "a disk cannot be flushed", strerror(-r));
    }
    return 0;
}

static void drain(struct vm *vm)
{
    for (struct device *d = vm->devices; d; d = d->next)
        if (d->ops->drain)
            d->ops->drain(d);
}

/* --- sections --- */

static void put_text(struct stream *out, const char *text)
{
    size_t n = strlen(text);

    stream_put_u32(out, (u32)n);
    stream_put(out, text, n);
}

static int save_machine(struct save *s)
{
    struct pc *pc = s->pc;

    begin(s);
    stream_put_u16(&s->out, SAVE_VERSION);
    put_text(&s->out, pc->ends.version);
    put_text(&s->out, pc->vm.engine->name);
    stream_put_u64(&s->out, vm_clock_ns(&pc->vm));
    stream_put_u64(&s->out, host_realtime_ns());
    stream_put_u32(&s->out, pc->vm.nvcpus);
    return end(s, SAVE_MACHINE, 0);
}

static void save_option(void *opaque, const char *name, const char *value)
{
    struct save *s = opaque;
    char *text = NULL;

    /* Whoever restores it may be in another directory. */
    if (!strcmp(name, "disk"))
        text = block_spec_from(value, s->pc->cwd);
    put_text(&s->out, name);
    put_text(&s->out, text ? text : value);
    free(text);
}

static void add_plugged(struct pc *pc, enum pc_plug_kind kind, struct config_list *l)
{
    for (unsigned i = 0; i < pc_plug_count(pc, kind); i++)
        l->item[l->n++] = pc_plug_nth(pc, kind, i)->text;
}

/* What was plugged is at the ends of the lists, and is told apart by a section of its own. */
static int save_options(struct save *s)
{
    struct pc *pc = s->pc;
    struct config cfg = *pc->cfg;
    int r;

    cfg.disk.n = pc->ndisks;
    add_plugged(pc, PC_PLUG_DISK, &cfg.disk);
    cfg.net.n = pc->net_options;
    /* --publish made one, and would not any more. */
    if (!cfg.net.n && pc->nnets && pc_plug_count(pc, PC_PLUG_NET))
        cfg.net.item[cfg.net.n++] = "user";
    add_plugged(pc, PC_PLUG_NET, &cfg.net);
    begin(s);
    stream_put_u16(&s->out, SAVE_VERSION);
    config_save(&cfg, save_option, s);
    r = end(s, SAVE_OPTIONS, 0);
    if (r)
        return r;
    begin(s);
    pc_plug_save(pc, &s->out);
    return end(s, SAVE_PLUGGED, 0);
}

static int save_disks(struct save *s)
{
    struct pc *pc = s->pc;

    begin(s);
    stream_put_u16(&s->out, SAVE_VERSION);
    stream_put_u32(&s->out, pc_disk_count(pc));
    for (unsigned i = 0; i < pc_disk_count(pc); i++) {
        struct blockdev *b = pc_disk_dev(pc, i);
        struct block_stamp stamp;
        int r = b->ops->stamp(b, &stamp);

        if (r)
            return refuse(s, r, "cannot look at a disk", strerror(-r));
        stream_put_u64(&s->out, b->size);
        stream_put_u64(&s->out, stamp.size);
        stream_put_u64(&s->out, stamp.changed_ns);
    }
    return end(s, SAVE_DISKS, 0);
}

static int save_vcpus(struct save *s)
{
    struct vm *vm = &s->pc->vm;
    struct x86_vcpu_state *state = &s->pc->start;
    struct stream in;

    for (unsigned i = 0; i < vm->nvcpus; i++) {
        int r = vm->engine->get_state(vm->vcpu[i], state);

        if (r)
            return refuse(s, r, "the engine cannot give the state of a virtual CPU", strerror(-r));
        begin(s);
        vcpu_save(vm->vcpu[i], state, &s->out);
        stream_init(&in, s->buf, s->out.pos);
        if (!s->out.error && !vcpu_can_load(vm->vcpu[i], &in))
            return refuse(s, -EINVAL,
                          "a virtual CPU is in a state that could not be restored; try again later",
                          NULL);
        r = end(s, SAVE_VCPU, i);
        if (r)
            return r;
    }
    begin(s);
    x86_cpu_model_save(&vm->cpu_model, &s->out);
    return end(s, SAVE_CPU, 0);
}

static int save_device(struct save *s, const struct device *d)
{
    const char *why = "it is too large";
    int r;

    begin(s);
    vm_lock(&s->pc->vm);
    r = d->ops->save(d, &s->out, &why);
    vm_unlock(&s->pc->vm);
    if (!r)
        r = s->out.error;
    if (r == -EBUSY)
        return refuse(s, r, "not now", why);
    if (r)
        return refuse(s, r, d->ops->name, why);
    return end(s, d->ops->name, d->instance);
}

static int save_all(struct save *s)
{
    struct pc *pc = s->pc;
    int r = settle_disks(s);

    if (!r)
        r = save_machine(s);
    if (!r)
        r = save_options(s);
    if (!r)
        r = save_vcpus(s); /* before devices: an engine may have some of their state */
    for (struct device *d = pc->vm.devices; d && !r; d = d->next)
        if (d->ops->save)
            r = save_device(s, d);
    if (!r)
        r = snapshot_write_memory(s->w, &pc->ram, s->opt->wanted, s->opt->opaque);
    if (!r)
        r = save_disks(s);
    return r ? r : snapshot_writer_finish(s->w);
}

/* --- the whole --- */

static int check(struct save *s)
{
    if (s->pc->cfg->command)
        return refuse(s, -EBUSY, "a machine that runs a command (-- COMMAND) cannot be saved",
                      NULL);
    for (const struct device *d = s->pc->vm.devices; d; d = d->next)
        if (d->ops->load && !d->ops->save)
            return refuse(s, -ENOSYS, d->ops->name, "it has no state to save");
    return 0;
}

/* The guest is not ended before its state is on the host's disk and somebody knows of it. */
static int check_end(const struct save *s, int fd)
{
    const struct pc_save_options *opt = s->opt;

    if (opt->stop && fsync(fd))
        return -errno;
    return !opt->wanted || opt->wanted(opt->opaque) ? 0 : -ECANCELED;
}

/* It may have ended before it was paused: what would be saved is a guest that waits for its power
 * to go. */
static int check_runs(struct save *s)
{
    return vm_is_running(&s->pc->vm) ? 0 : refuse(s, -ESHUTDOWN, "the machine is ending", NULL);
}

int pc_save(struct pc *pc, int fd, const struct pc_save_options *opt, struct pc_save_result *result,
            char *err, size_t err_size)
{
    struct save s = {.pc = pc, .opt = opt, .err = err, .err_size = err_size};
    u64 began = host_monotonic_ns();
    int r = check(&s);

    if (r)
        return r;
    err[0] = 0;
    if (pc->ends.saved && snapshot_is_file(pc->ends.saved->file, fd))
        return refuse(&s, -EBUSY, "the machine runs from that file", NULL);
    /* Else damage of the one file would be in the other with a good checksum. */
    pc_restore_verified(pc);
    s.buf = malloc(STATE_MAX);
    r = s.buf ? snapshot_writer_open(&s.w, fd, opt->compress) : -ENOMEM;
    if (r == -EINVAL)
        snprintf(err, err_size, "what came with the request is no regular file open for writing");
    if (!r) {
        vm_pause(&pc->vm);
        pc_plug_settle(pc);
        drain(&pc->vm);
        r = check_runs(&s);
        if (!r)
            r = save_all(&s);
        if (!r)
            r = check_end(&s, fd);
        /* Ended without another step: what is saved stays what was. */
        if (!r && opt->stop)
            vm_stop(&pc->vm, VM_QUIT, 0, "saved");
        else
            vm_resume(&pc->vm);
    }
    if (!r)
        *result = (struct pc_save_result){.bytes = snapshot_writer_size(s.w),
                                          .memory = snapshot_writer_memory(s.w),
                                          .stood_ns = host_monotonic_ns() - began};
    else if (!err[0])
        snprintf(err, err_size, "cannot write the file: %s", strerror(-r));
    snapshot_writer_free(s.w);
    free(s.buf);
    return r;
}
