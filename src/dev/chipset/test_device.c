/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/chipset/test_device.h"

#include <string.h>

struct test_device {
    struct device dev;
    struct irq_line irq[TEST_DEVICE_IRQS];
    u32 asserted; /* a bit an irq */
    u8 reg[4];
    u8 mem[TEST_DEVICE_MEM_SIZE];
};

/* The bus keeps off and size within the region. */
static u64 get(const u8 *p, unsigned size)
{
    u64 val = 0;

    memcpy(&val, p, size);
    return val;
}

static u64 reg_read(void *dev, u64 off, unsigned size)
{
    const struct test_device *t = dev;

    return get(t->reg + off, size);
}

static void reg_write(void *dev, u64 off, unsigned size, u64 val)
{
    struct test_device *t = dev;

    memcpy(t->reg + off, &val, size);
}

static u64 mem_read(void *dev, u64 off, unsigned size)
{
    const struct test_device *t = dev;

    return get(t->mem + off, size);
}

static void mem_write(void *dev, u64 off, unsigned size, u64 val)
{
    struct test_device *t = dev;

    memcpy(t->mem + off, &val, size);
}

static u64 nothing_read(void *dev, u64 off, unsigned size)
{
    (void)dev;
    (void)off;
    (void)size;
    return 0;
}

static void flush_write(void *dev, u64 off, unsigned size, u64 val)
{
    (void)dev;
    (void)off;
    (void)size;
    (void)val;
}

/* An access of any size is the line's whose port it is made at. */
static void irq_write(void *dev, u64 off, unsigned size, u64 val)
{
    struct test_device *t = dev;
    u32 bit = BIT32(off);

    (void)size;
    t->asserted = val ? t->asserted | bit : t->asserted & ~bit;
    irq_set(&t->irq[off], val != 0);
}

static const struct bus_ops reg_ops = {
    .read = reg_read, .write = reg_write, .min_size = 1, .max_size = 4};
static const struct bus_ops flush_ops = {
    .read = nothing_read, .write = flush_write, .min_size = 1, .max_size = 4};
static const struct bus_ops irq_ops = {
    .read = nothing_read, .write = irq_write, .min_size = 1, .max_size = 4};
static const struct bus_ops mem_ops = {
    .read = mem_read, .write = mem_write, .min_size = 1, .max_size = 8};

#define STATE_VERSION 1

static int save(const struct device *d, struct stream *out, const char **why)
{
    const struct test_device *t = container_of(d, struct test_device, dev);

    (void)why;
    stream_put_u16(out, STATE_VERSION);
    stream_put_u32(out, t->asserted);
    stream_put(out, t->reg, sizeof(t->reg));
    stream_put(out, t->mem, sizeof(t->mem));
    return out->error;
}

static int load(struct device *d, struct stream *in)
{
    struct test_device *t = container_of(d, struct test_device, dev);

    stream_expect(in, stream_get_u16(in) == STATE_VERSION);
    t->asserted = stream_get_u32(in);
    stream_expect(in, !(t->asserted >> TEST_DEVICE_IRQS));
    stream_get(in, t->reg, sizeof(t->reg));
    stream_get(in, t->mem, sizeof(t->mem));
    return in->error;
}

static void destroy(struct device *d)
{
    host_free(container_of(d, struct test_device, dev));
}

static const struct device_ops ops = {
    .name = "test-device", .save = save, .load = load, .destroy = destroy};

struct device *test_device_create(struct vm *vm, const struct test_device_config *cfg)
{
    struct test_device *t = host_zalloc(sizeof(*t));

    if (!t)
        return NULL;
    t->dev.ops = &ops;
    memcpy(t->irq, cfg->irq, sizeof(t->irq));
    if (bus_add(&vm->pio, TEST_DEVICE_PORT, sizeof(t->reg), &reg_ops, t, "test register"))
        goto fail;
    if (bus_add(&vm->pio, TEST_DEVICE_FLUSH_PORT, 4, &flush_ops, t, "test flush"))
        goto remove_reg;
    if (bus_add(&vm->pio, TEST_DEVICE_IRQ_PORT, TEST_DEVICE_IRQS, &irq_ops, t, "test interrupts"))
        goto remove_flush;
    if (bus_add(&vm->mmio, TEST_DEVICE_MEM, sizeof(t->mem), &mem_ops, t, "test memory"))
        goto remove_irq;
    vm_add_device(vm, &t->dev);
    return &t->dev;
remove_irq:
    bus_remove(&vm->pio, TEST_DEVICE_IRQ_PORT);
remove_flush:
    bus_remove(&vm->pio, TEST_DEVICE_FLUSH_PORT);
remove_reg:
    bus_remove(&vm->pio, TEST_DEVICE_PORT);
fail:
    host_free(t);
    return NULL;
}
