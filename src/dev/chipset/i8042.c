/* SPDX-License-Identifier: Apache-2.0 */
/* Keyboard controller (IBM PS/2 technical reference, "Keyboard and auxiliary device controller").
 */
#include "dev/chipset/i8042.h"

/* Status */
#define ST_OBF 0x01
#define ST_SYS 0x04
#define ST_CMD 0x08
#define ST_UNLOCKED 0x10
#define ST_AUX 0x20
#define ST_TIMEOUT 0x40
/* Command byte */
#define CB_KBD_IRQ 0x01
#define CB_AUX_IRQ 0x02
#define CB_SYS 0x04
#define CB_KBD_OFF 0x10
#define CB_AUX_OFF 0x20
/* Output port */
#define OUT_NO_RESET 0x01
#define OUT_A20 0x02

/* What a device that does not answer leaves in the output buffer. */
#define NO_ANSWER 0xfe

struct i8042 {
    struct device dev;
    struct vm *vm;
    struct irq_line kbd_irq, aux_irq;
    u8 ram[32]; /* [0]: command byte */
    u8 out_port;
    u8 command; /* waits for its data byte; 0: none */
    u8 out;     /* output buffer */
    bool out_full, out_aux, out_timeout, last_command;
};

static void update_irq(struct i8042 *k)
{
    irq_set(&k->kbd_irq, k->out_full && !k->out_aux && (k->ram[0] & CB_KBD_IRQ));
    irq_set(&k->aux_irq, k->out_full && k->out_aux && (k->ram[0] & CB_AUX_IRQ));
}

static void answer(struct i8042 *k, u8 val, bool aux, bool timeout)
{
    k->out = val;
    k->out_full = true;
    k->out_aux = aux;
    k->out_timeout = timeout;
}

static void write_out_port(struct i8042 *k, u8 val)
{
    k->out_port = val;
    if (!(val & OUT_NO_RESET))
        vm_stop(k->vm, VM_RESET, 0, "reset through the keyboard controller");
}

static void command(struct i8042 *k, u8 cmd)
{
    k->last_command = true;
    k->command = 0;
    switch (cmd) {
    case 0x20 ... 0x3f:
        answer(k, k->ram[cmd & 31], false, false);
        break;
    case 0x60 ... 0x7f: /* write RAM */
    case 0xd1:          /* write output port */
    case 0xd2:          /* write keyboard output buffer */
    case 0xd3:          /* write auxiliary output buffer */
    case 0xd4:          /* write to the auxiliary device */
        k->command = cmd;
        break;
    case 0xa7:
        k->ram[0] |= CB_AUX_OFF;
        break;
    case 0xa8:
        k->ram[0] &= (u8)~CB_AUX_OFF;
        break;
    case 0xa9: /* test the auxiliary port: no error found */
    case 0xab: /* test the keyboard port */
        answer(k, 0x00, false, false);
        break;
    case 0xaa: /* self-test */
        k->ram[0] |= CB_SYS;
        answer(k, 0x55, false, false);
        break;
    case 0xad:
        k->ram[0] |= CB_KBD_OFF;
        break;
    case 0xae:
        k->ram[0] &= (u8)~CB_KBD_OFF;
        break;
    case 0xc0: /* input port: keyboard not locked */
        answer(k, 0x80, false, false);
        break;
    case 0xd0:
        answer(k, k->out_port, false, false);
        break;
    case 0xdd:
        k->out_port &= (u8)~OUT_A20;
        break;
    case 0xdf:
        k->out_port |= OUT_A20;
        break;
    case 0xf0 ... 0xff: /* pulse output bits that are 0 */
        if (!(cmd & OUT_NO_RESET))
            vm_stop(k->vm, VM_RESET, 0, "reset through the keyboard controller");
        break;
    default:
        break;
    }
    update_irq(k);
}

static void data(struct i8042 *k, u8 val)
{
    u8 cmd = k->command;

    k->command = 0;
    k->last_command = false;
    switch (cmd) {
    case 0x60 ... 0x7f:
        k->ram[cmd & 31] = val;
        break;
    case 0xd1:
        write_out_port(k, val);
        break;
    case 0xd2:
        answer(k, val, false, false);
        break;
    case 0xd3:
        answer(k, val, true, false);
        break;
    case 0xd4:
        answer(k, NO_ANSWER, true, true);
        break;
    default: /* to the keyboard */
        k->ram[0] &= (u8)~CB_KBD_OFF;
        answer(k, NO_ANSWER, false, true);
        break;
    }
    update_irq(k);
}

static u64 data_read(void *dev, u64 off, unsigned size)
{
    struct i8042 *k = dev;

    (void)off;
    (void)size;
    k->out_full = k->out_timeout = false;
    update_irq(k);
    return k->out;
}

static void data_write(void *dev, u64 off, unsigned size, u64 val)
{
    (void)off;
    (void)size;
    data(dev, (u8)val);
}

static u64 status_read(void *dev, u64 off, unsigned size)
{
    struct i8042 *k = dev;
    u8 val = ST_UNLOCKED;

    (void)off;
    (void)size;
    if (k->out_full)
        val |= ST_OBF;
    if (k->out_full && k->out_aux)
        val |= ST_AUX;
    if (k->out_timeout)
        val |= ST_TIMEOUT;
    if (k->ram[0] & CB_SYS)
        val |= ST_SYS;
    if (k->last_command)
        val |= ST_CMD;
    return val;
}

static void status_write(void *dev, u64 off, unsigned size, u64 val)
{
    (void)off;
    (void)size;
    command(dev, (u8)val);
}

static const struct bus_ops data_ops = {
    .read = data_read, .write = data_write, .min_size = 1, .max_size = 1};
static const struct bus_ops status_ops = {
    .read = status_read, .write = status_write, .min_size = 1, .max_size = 1};

static void reset(struct device *d)
{
    struct i8042 *k = container_of(d, struct i8042, dev);

    for (unsigned i = 0; i < ARRAY_SIZE(k->ram); i++)
        k->ram[i] = 0;
    k->ram[0] = CB_SYS | CB_KBD_OFF | CB_AUX_OFF; /* as firmware leaves it */
    k->out_port = OUT_NO_RESET | OUT_A20 | 0xcc;
    k->command = k->out = 0;
    k->out_full = k->out_aux = k->out_timeout = k->last_command = false;
    update_irq(k);
}

#define STATE_VERSION 1

static int save(const struct device *d, struct stream *out, const char **why)
{
    const struct i8042 *k = container_of(d, struct i8042, dev);

    (void)why;
    stream_put_u16(out, STATE_VERSION);
    stream_put(out, k->ram, sizeof(k->ram));
    stream_put_u8(out, k->out_port);
    stream_put_u8(out, k->command);
    stream_put_u8(out, k->out);
    stream_put_u8(out, k->out_full);
    stream_put_u8(out, k->out_aux);
    stream_put_u8(out, k->out_timeout);
    stream_put_u8(out, k->last_command);
    return out->error;
}

/* Any byte can be written to each of the registers; of the commands, data() knows all. */
static int load(struct device *d, struct stream *in)
{
    struct i8042 *k = container_of(d, struct i8042, dev);

    stream_expect(in, stream_get_u16(in) == STATE_VERSION);
    stream_get(in, k->ram, sizeof(k->ram));
    k->out_port = stream_get_u8(in);
    k->command = stream_get_u8(in);
    k->out = stream_get_u8(in);
    k->out_full = stream_get_bool(in);
    k->out_aux = stream_get_bool(in);
    k->out_timeout = stream_get_bool(in);
    k->last_command = stream_get_bool(in);
    return in->error;
}

static void destroy(struct device *d)
{
    host_free(container_of(d, struct i8042, dev));
}

static const struct device_ops ops = {
    .name = "i8042", .reset = reset, .save = save, .load = load, .destroy = destroy};

struct device *i8042_create(struct vm *vm, const struct i8042_config *cfg)
{
    struct i8042 *k = host_zalloc(sizeof(*k));

    if (!k)
        return NULL;
    k->dev.ops = &ops;
    k->vm = vm;
    k->kbd_irq = cfg->kbd_irq;
    k->aux_irq = cfg->aux_irq;
    reset(&k->dev);
    if (bus_add(&vm->pio, 0x60, 1, &data_ops, k, "i8042") ||
        bus_add(&vm->pio, 0x64, 1, &status_ops, k, "i8042")) {
        host_free(k);
        return NULL;
    }
    vm_add_device(vm, &k->dev);
    return &k->dev;
}
