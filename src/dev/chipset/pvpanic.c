/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/chipset/pvpanic.h"

#include "base/log.h"

#define EXIT_PANICKED 124

struct pvpanic {
    struct device dev;
    struct vm *vm;
    bool said; /* that it has panicked */
};

static u64 port_read(void *dev, u64 off, unsigned size)
{
    (void)dev;
    (void)off;
    (void)size;
    return PVPANIC_PANICKED | PVPANIC_CRASHLOADED;
}

static void port_write(void *dev, u64 off, unsigned size, u64 val)
{
    struct pvpanic *p = dev;

    (void)off;
    (void)size;
    if (val & PVPANIC_PANICKED)
        vm_stop(p->vm, VM_CRASH, EXIT_PANICKED, "the guest's kernel has panicked");
    else if ((val & PVPANIC_CRASHLOADED) && !p->said) {
        p->said = true;
        log_warn("the guest's kernel has panicked and runs its crash kernel");
    }
}

static const struct bus_ops port_ops = {
    .read = port_read, .write = port_write, .min_size = 1, .max_size = 1};

#define STATE_VERSION 1

static int save(const struct device *d, struct stream *out, const char **why)
{
    (void)why;
    stream_put_u16(out, STATE_VERSION);
    stream_put_u8(out, container_of(d, struct pvpanic, dev)->said);
    return out->error;
}

static int load(struct device *d, struct stream *in)
{
    stream_expect(in, stream_get_u16(in) == STATE_VERSION);
    container_of(d, struct pvpanic, dev)->said = stream_get_bool(in);
    return in->error;
}

static void destroy(struct device *d)
{
    host_free(container_of(d, struct pvpanic, dev));
}

static const struct device_ops ops = {
    .name = "pvpanic", .save = save, .load = load, .destroy = destroy};

struct device *pvpanic_create(struct vm *vm, u16 port)
{
    struct pvpanic *p = host_zalloc(sizeof(*p));

    if (!p)
        return NULL;
    p->dev.ops = &ops;
    p->vm = vm;
    if (bus_add(&vm->pio, port, 1, &port_ops, p, "pvpanic")) {
        host_free(p);
        return NULL;
    }
    vm_add_device(vm, &p->dev);
    return &p->dev;
}
