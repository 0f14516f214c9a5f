/* SPDX-License-Identifier: Apache-2.0 */
#include "state_file.h"

#include <errno.h>
#include <string.h>

#include "test.h"

static struct state_file file;

struct state_file *state_save(struct machine *m)
{
    const char *why = NULL;

    memset(&file, 0, sizeof(file));
    vm_pause(&m->vm);
    for (struct device *d = m->vm.devices; d; d = d->next)
        if (d->ops->drain)
            d->ops->drain(d);
    file.clock_ns = vm_clock_ns(&m->vm);
    for (unsigned i = 0; i < m->vm.nvcpus; i++)
        file.tsc[i] = m->vm.tsc_stopped + m->cpu[i].s.tsc_offset;
    memcpy(file.ram, m->ram, FAKE_RAM_SIZE);
    vm_lock(&m->vm);
    for (struct device *d = m->vm.devices; d; d = d->next) {
        struct stream out;
        if (!d->ops->save)
            continue;
        assert_true(file.n < STATE_DEVICES_MAX);
        stream_init(&out, file.dev[file.n].bytes, sizeof(file.dev[0].bytes));
        assert_int_equal(d->ops->save(d, &out, &why), 0);
        assert_int_equal(out.error, 0);
        file.dev[file.n].name = d->ops->name;
        file.dev[file.n].instance = d->instance;
        file.dev[file.n++].len = out.pos;
    }
    vm_unlock(&m->vm);
    vm_resume(&m->vm);
    return &file;
}

static struct device *find(struct machine *m, const char *name, unsigned instance)
{
    for (struct device *d = m->vm.devices; d; d = d->next)
        if (!strcmp(d->ops->name, name) && d->instance == instance)
            return d;
    fail_msg("no device %s", name);
    return NULL;
}

static int load(struct device *d, const u8 *bytes, size_t len)
{
    static u8 copy[sizeof(file.dev[0].bytes)];
    struct stream in;
    int err;

    memcpy(copy, bytes, len);
    stream_init(&in, copy, len);
    err = d->ops->load(d, &in);
    if (!err && in.error)
        err = in.error;
    return !err && in.pos != len ? -E2BIG : err;
}

int state_load(struct machine *m, const struct state_file *f)
{
    int err = 0;

    vm_pause(&m->vm);
    vm_clock_set(&m->vm, f->clock_ns);
    for (unsigned i = 0; i < m->vm.nvcpus; i++)
        m->cpu[i].s.tsc_offset = f->tsc[i] - m->vm.tsc_stopped;
    memcpy(m->ram, f->ram, FAKE_RAM_SIZE);
    vm_lock(&m->vm);
    for (unsigned i = 0; i < f->n && !err; i++)
        err = load(find(m, f->dev[i].name, f->dev[i].instance), f->dev[i].bytes, f->dev[i].len);
    for (struct device *d = m->vm.devices; d && !err; d = d->next)
        if (d->ops->loaded)
            d->ops->loaded(d);
    vm_unlock(&m->vm);
    vm_resume(&m->vm);
    return err;
}

int state_load_device(struct machine *m, const char *name, const u8 *bytes, size_t len)
{
    int err;

    vm_pause(&m->vm);
    vm_lock(&m->vm);
    err = load(find(m, name, 0), bytes, len);
    vm_unlock(&m->vm);
    vm_resume(&m->vm);
    return err;
}

u8 *state_bytes(struct state_file *f, const char *name, size_t *len)
{
    for (unsigned i = 0; i < f->n; i++)
        if (!strcmp(f->dev[i].name, name) && !f->dev[i].instance) {
            *len = f->dev[i].len;
            return f->dev[i].bytes;
        }
    fail_msg("%s was not saved", name);
    return NULL;
}

void state_refuses_pieces(struct machine *m, const struct state_file *f, const char *name)
{
    static u8 copy[sizeof(file.dev[0].bytes)];
    size_t len;
    const u8 *bytes = state_bytes((struct state_file *)f, name, &len);

    for (size_t n = 0; n < len; n++)
        assert_int_equal(state_load_device(m, name, bytes, n), -EINVAL);
    memcpy(copy, bytes, len);
    copy[0]++;
    assert_int_equal(state_load_device(m, name, copy, len), -EINVAL);
}
