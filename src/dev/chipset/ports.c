/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/chipset/ports.h"

/* Port A */
#define PORTA_FAST_INIT 0x01
#define PORTA_A20 0x02

struct ports {
    struct device dev;
    struct vm *vm;
    u8 porta, post;
};

static u64 porta_read(void *dev, u64 off, unsigned size)
{
    struct ports *r = dev;

    (void)off;
    (void)size;
    return r->porta;
}

/* A20 is always on: no software of this century needs the wrap at 1 MiB. */
static void porta_write(void *dev, u64 off, unsigned size, u64 val)
{
    struct ports *r = dev;

    (void)off;
    (void)size;
    r->porta = (u8)val & (u8)~PORTA_FAST_INIT;
    if (val & PORTA_FAST_INIT)
        vm_stop(r->vm, VM_RESET, 0, "reset through port 92");
}

static const struct bus_ops porta_ops = {
    .read = porta_read, .write = porta_write, .min_size = 1, .max_size = 1};

static u64 post_read(void *dev, u64 off, unsigned size)
{
    struct ports *r = dev;

    (void)off;
    (void)size;
    return r->post;
}

static void post_write(void *dev, u64 off, unsigned size, u64 val)
{
    struct ports *r = dev;

    (void)off;
    (void)size;
    r->post = (u8)val;
}

static const struct bus_ops post_ops = {
    .read = post_read, .write = post_write, .min_size = 1, .max_size = 1};

/* FPU errors are reported by #MF, the ports that cleared the old way's latch do nothing. */
static u64 fpu_read(void *dev, u64 off, unsigned size)
{
    (void)dev;
    (void)off;
    return size_mask(size);
}

static void fpu_write(void *dev, u64 off, unsigned size, u64 val)
{
    (void)dev;
    (void)off;
    (void)size;
    (void)val;
}

static const struct bus_ops fpu_ops = {
    .read = fpu_read, .write = fpu_write, .min_size = 1, .max_size = 1};

static void reset(struct device *d)
{
    struct ports *r = container_of(d, struct ports, dev);

    r->post = 0;
    r->porta = PORTA_A20;
}

#define STATE_VERSION 1

static int save(const struct device *d, struct stream *out, const char **why)
{
    const struct ports *r = container_of(d, struct ports, dev);

    (void)why;
    stream_put_u16(out, STATE_VERSION);
    stream_put_u8(out, r->porta);
    stream_put_u8(out, r->post);
    return out->error;
}

static int load(struct device *d, struct stream *in)
{
    struct ports *r = container_of(d, struct ports, dev);

    stream_expect(in, stream_get_u16(in) == STATE_VERSION);
    r->porta = stream_get_u8(in);
    stream_expect(in, !(r->porta & PORTA_FAST_INIT));
    r->post = stream_get_u8(in);
    return in->error;
}

static void destroy(struct device *d)
{
    host_free(container_of(d, struct ports, dev));
}

static const struct device_ops ops = {
    .name = "ports", .reset = reset, .save = save, .load = load, .destroy = destroy};

struct device *ports_create(struct vm *vm)
{
    struct ports *r = host_zalloc(sizeof(*r));

    if (!r)
        return NULL;
    r->dev.ops = &ops;
    r->vm = vm;
    reset(&r->dev);
    if (bus_add(&vm->pio, 0x92, 1, &porta_ops, r, "port92") ||
        bus_add(&vm->pio, 0x80, 1, &post_ops, r, "port80") ||
        bus_add(&vm->pio, 0xed, 1, &post_ops, r, "delay") ||
        bus_add(&vm->pio, 0xf0, 2, &fpu_ops, r, "fpu")) {
        host_free(r);
        return NULL;
    }
    vm_add_device(vm, &r->dev);
    return &r->dev;
}
