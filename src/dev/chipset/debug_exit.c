/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/chipset/debug_exit.h"

struct debug_exit {
    struct device dev;
    struct vm *vm;
};

static u64 port_read(void *dev, u64 off, unsigned size)
{
    (void)dev;
    (void)off;
    (void)size;
    return 0;
}

static void port_write(void *dev, u64 off, unsigned size, u64 val)
{
    struct debug_exit *e = dev;

    (void)off;
    (void)size;
    vm_stop(e->vm, VM_TEST_EXIT, (int)(((u32)val << 1 | 1) & 0xff), NULL);
}

static const struct bus_ops port_ops = {
    .read = port_read, .write = port_write, .min_size = 1, .max_size = 4};

static void destroy(struct device *d)
{
    host_free(container_of(d, struct debug_exit, dev));
}

static const struct device_ops ops = {.name = "debug-exit", .destroy = destroy};

struct device *debug_exit_create(struct vm *vm, u16 base)
{
    struct debug_exit *e = host_zalloc(sizeof(*e));

    if (!e)
        return NULL;
    e->dev.ops = &ops;
    e->vm = vm;
    if (bus_add(&vm->pio, base, 4, &port_ops, e, "debug-exit")) {
        host_free(e);
        return NULL;
    }
    vm_add_device(vm, &e->dev);
    return &e->dev;
}
