/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 16550A (National PC16550D data sheet). Transmission takes no time: THR is empty again at once.
 * Bytes go to the character device in lines or after a short while, to spare system calls; only
 * one that holds back (chardev.holds) keeps THR from being empty.
 */
#include "dev/chipset/uart.h"

#define FIFO_SIZE 16
#define TX_BATCH 64
#define TX_DELAY_NS 2000000u
#define INPUT_CLOCK 115200u /* baud at divisor 1 */

/* IER */
#define IER_RDI 0x01
#define IER_THRI 0x02
#define IER_RLSI 0x04
#define IER_MSI 0x08
/* IIR */
#define IIR_NONE 0x01
#define IIR_MSI 0x00
#define IIR_THRI 0x02
#define IIR_RDI 0x04
#define IIR_RLSI 0x06
#define IIR_TIMEOUT 0x0c
#define IIR_FIFO 0xc0
/* FCR */
#define FCR_ENABLE 0x01
#define FCR_CLEAR_RX 0x02
#define FCR_CLEAR_TX 0x04
/* LCR */
#define LCR_DLAB 0x80
#define LCR_BREAK 0x40
/* MCR */
#define MCR_DTR 0x01
#define MCR_RTS 0x02
#define MCR_OUT1 0x04
#define MCR_OUT2 0x08
#define MCR_LOOP 0x10
/* LSR */
#define LSR_DR 0x01
#define LSR_OE 0x02
#define LSR_BI 0x10
#define LSR_ERRORS 0x1e
#define LSR_THRE 0x20
#define LSR_TEMT 0x40
/* MSR */
#define MSR_DELTAS 0x0f
#define MSR_TERI 0x04
#define MSR_CTS 0x10
#define MSR_DSR 0x20
#define MSR_RI 0x40
#define MSR_DCD 0x80

struct uart {
    struct device dev;
    struct vm *vm;
    struct irq_line irq;
    struct chardev *chr;
    u8 ier, fcr, lcr, mcr, msr, scr;
    u8 lsr; /* OE and BI only: the rest is derived */
    u16 divisor;
    bool thri;    /* THRE interrupt latched */
    bool timeout; /* characters wait and nobody reads */
    u8 rx[FIFO_SIZE];
    unsigned rx_head, rx_n;
    struct vtimer rx_timer;
    u8 tx[TX_BATCH + FIFO_SIZE]; /* what the guest may send without asking fits behind a batch */
    unsigned tx_n;
    bool tx_held; /* the other end takes nothing now: THR is not empty */
    struct vtimer tx_timer;
};

static unsigned rx_room(const struct uart *u)
{
    unsigned size = u->fcr & FCR_ENABLE ? FIFO_SIZE : 1;
    return u->rx_n < size ? size - u->rx_n : 0;
}

static unsigned rx_trigger(const struct uart *u)
{
    static const u8 level[4] = {1, 4, 8, 14};
    return u->fcr & FCR_ENABLE ? level[u->fcr >> 6] : 1;
}

/* IIR's source, by priority (data sheet table V). */
static u8 source(const struct uart *u)
{
    if ((u->ier & IER_RLSI) && (u->lsr & LSR_ERRORS))
        return IIR_RLSI;
    if ((u->ier & IER_RDI) && u->rx_n >= rx_trigger(u))
        return IIR_RDI;
    if ((u->ier & IER_RDI) && u->timeout && u->rx_n)
        return IIR_TIMEOUT;
    if ((u->ier & IER_THRI) && u->thri)
        return IIR_THRI;
    if ((u->ier & IER_MSI) && (u->msr & MSR_DELTAS))
        return IIR_MSI;
    return IIR_NONE;
}

/* On a PC's board the pin is behind OUT2. It is not here, nor in QEMU: small systems written there
 * never set OUT2 (xv6) and would get no interrupt, and those that do set it miss nothing. */
static void update_irq(struct uart *u)
{
    irq_set(&u->irq, source(u) != IIR_NONE);
}

/* --- receiving ----------------------------------------------------------------------------------
 */

/* Four characters' time after the last one moved (data sheet, "FIFO timeout interrupts"). */
static void arm_timeout(struct uart *u)
{
    u64 divisor = u->divisor ? u->divisor : 1;

    if (!(u->fcr & FCR_ENABLE) || !u->rx_n || u->rx_n >= rx_trigger(u)) {
        vtimer_cancel(&u->rx_timer);
        return;
    }
    vtimer_set(&u->rx_timer, vm_clock_ns(u->vm) + 40 * divisor * (1000000000u / INPUT_CLOCK));
}

static void rx_timer_fired(void *opaque)
{
    struct uart *u = opaque;

    u->timeout = true;
    update_irq(u);
}

static void rx_push(struct uart *u, u8 c)
{
    if (!rx_room(u)) {
        u->lsr |= LSR_OE;
        if (u->fcr & FCR_ENABLE)
            return; /* the shift register is overwritten, the FIFO is not */
        u->rx_n = 0;
    }
    u->rx[(u->rx_head + u->rx_n++) % FIFO_SIZE] = c;
}

static u8 rx_pop(struct uart *u)
{
    u8 c;

    u->timeout = false;
    if (!u->rx_n)
        return 0;
    c = u->rx[u->rx_head];
    u->rx_head = (u->rx_head + 1) % FIFO_SIZE;
    u->rx_n--;
    return c;
}

static void kick_input(struct uart *u)
{
    if (u->chr && u->chr->kick_input && !(u->mcr & MCR_LOOP))
        u->chr->kick_input(u->chr);
}

static size_t on_input(void *dev, const u8 *buf, size_t n)
{
    struct uart *u = dev;
    size_t taken = rx_room(u);

    if (u->mcr & MCR_LOOP) /* the line is cut; it is offered again afterwards */
        return 0;
    if (taken > n)
        taken = n;
    for (size_t i = 0; i < taken; i++)
        rx_push(u, buf[i]);
    if (taken) {
        u->timeout = false;
        arm_timeout(u);
        update_irq(u);
    }
    return taken;
}

static void clear_rx(struct uart *u)
{
    u->rx_n = u->rx_head = 0;
    u->timeout = false;
    vtimer_cancel(&u->rx_timer);
}

/* --- transmitting --------------------------------------------------------------------------------
 */

static void tx_flush(struct uart *u)
{
    size_t taken = u->tx_n;

    if (u->tx_n && u->chr)
        taken = u->chr->write(u->chr, u->tx, u->tx_n);
    u->tx_held = u->chr && u->chr->holds && taken < u->tx_n;
    if (!u->tx_held)
        taken = u->tx_n;
    u->tx_n -= (unsigned)taken;
    for (unsigned i = 0; i < u->tx_n; i++)
        u->tx[i] = u->tx[taken + i];
    vtimer_cancel(&u->tx_timer);
}

/* The other end has room again. */
static void on_room(void *dev)
{
    struct uart *u = dev;

    if (!u->tx_held)
        return;
    tx_flush(u);
    if (!u->tx_held) {
        u->thri = true;
        update_irq(u);
    }
}

static void tx_timer_fired(void *opaque)
{
    tx_flush(opaque);
}

static void transmit(struct uart *u, u8 c)
{
    u->thri = !u->tx_held;
    if (u->mcr & MCR_LOOP) {
        rx_push(u, c);
        arm_timeout(u);
    } else if (u->chr) {
        if (!u->tx_n)
            vtimer_set(&u->tx_timer, vm_clock_ns(u->vm) + TX_DELAY_NS);
        if (u->tx_n < sizeof(u->tx)) /* else the guest did not look whether THR is empty */
            u->tx[u->tx_n++] = c;
        if (!u->tx_held && (c == '\n' || u->tx_n >= TX_BATCH))
            tx_flush(u);
        u->thri = !u->tx_held;
    }
    update_irq(u);
}

/* --- modem lines
 * ---------------------------------------------------------------------------------- */

/* What the modem inputs show: a terminal that is always there, or MCR's outputs in loop-back. */
static u8 modem_inputs(const struct uart *u)
{
    u8 in = 0;

    if (!(u->mcr & MCR_LOOP))
        return u->chr ? MSR_CTS | MSR_DSR | MSR_DCD : 0;
    if (u->mcr & MCR_RTS)
        in |= MSR_CTS;
    if (u->mcr & MCR_DTR)
        in |= MSR_DSR;
    if (u->mcr & MCR_OUT1)
        in |= MSR_RI;
    if (u->mcr & MCR_OUT2)
        in |= MSR_DCD;
    return in;
}

static void update_modem(struct uart *u)
{
    u8 was = u->msr & 0xf0, now = modem_inputs(u);
    u8 delta = (u8)((was ^ now) >> 4);

    if (!(was & MSR_RI) || (now & MSR_RI))
        delta &= (u8)~MSR_TERI; /* RI's delta is its trailing edge only */
    u->msr = (u8)(now | (u->msr & MSR_DELTAS) | delta);
}

/* --- registers
 * ------------------------------------------------------------------------------------- */

static u8 read_lsr(struct uart *u)
{
    u8 val = u->lsr | (u->tx_held ? 0 : LSR_THRE | LSR_TEMT);

    if (u->rx_n)
        val |= LSR_DR;
    u->lsr = 0;
    update_irq(u);
    return val;
}

static u8 read_iir(struct uart *u)
{
    u8 src = source(u), val = src;

    if (u->fcr & FCR_ENABLE)
        val |= IIR_FIFO;
    if (src == IIR_THRI) {
        u->thri = false;
        update_irq(u);
    }
    return val;
}

static u64 port_read(void *dev, u64 off, unsigned size)
{
    struct uart *u = dev;
    u8 val;

    (void)size;
    switch (off) {
    case 0:
        if (u->lcr & LCR_DLAB)
            return u->divisor & 0xff;
        val = rx_pop(u);
        arm_timeout(u);
        update_irq(u);
        if (rx_room(u))
            kick_input(u);
        return val;
    case 1:
        return u->lcr & LCR_DLAB ? u->divisor >> 8 : u->ier;
    case 2:
        return read_iir(u);
    case 3:
        return u->lcr;
    case 4:
        return u->mcr;
    case 5:
        return read_lsr(u);
    case 6:
        val = u->msr;
        u->msr &= (u8)~MSR_DELTAS;
        update_irq(u);
        return val;
    default:
        return u->scr;
    }
}

static void write_ier(struct uart *u, u8 val)
{
    u8 rising = (u8)(~u->ier & val);

    u->ier = val & 0x0f;
    if ((rising & IER_THRI) && !u->tx_held) /* enabling it with THR empty interrupts at once */
        u->thri = true;
    update_irq(u);
}

static void write_fcr(struct uart *u, u8 val)
{
    /* Switching the FIFOs on or off empties them; the other bits count only with bit 0 set. */
    if ((val ^ u->fcr) & FCR_ENABLE)
        val |= FCR_CLEAR_RX | FCR_CLEAR_TX;
    if (val & FCR_CLEAR_RX)
        clear_rx(u);
    u->fcr = val & FCR_ENABLE ? val & 0xc9 : 0;
    arm_timeout(u);
    update_irq(u);
    kick_input(u);
}

static void write_lcr(struct uart *u, u8 val)
{
    u8 rising = (u8)(~u->lcr & val);

    u->lcr = val;
    if ((rising & LCR_BREAK) && (u->mcr & MCR_LOOP)) {
        rx_push(u, 0);
        u->lsr |= LSR_BI;
        arm_timeout(u);
        update_irq(u);
    }
}

static void write_mcr(struct uart *u, u8 val)
{
    bool was_loop = u->mcr & MCR_LOOP;

    u->mcr = val & 0x1f;
    update_modem(u);
    update_irq(u);
    if (was_loop && !(val & MCR_LOOP))
        kick_input(u);
}

static void port_write(void *dev, u64 off, unsigned size, u64 val64)
{
    struct uart *u = dev;
    u8 val = (u8)val64;

    (void)size;
    switch (off) {
    case 0:
        if (u->lcr & LCR_DLAB)
            u->divisor = (u16)((u->divisor & 0xff00) | val);
        else
            transmit(u, val);
        break;
    case 1:
        if (u->lcr & LCR_DLAB)
            u->divisor = (u16)((u->divisor & 0xff) | val << 8);
        else
            write_ier(u, val);
        break;
    case 2:
        write_fcr(u, val);
        break;
    case 3:
        write_lcr(u, val);
        break;
    case 4:
        write_mcr(u, val);
        break;
    case 7:
        u->scr = val;
        break;
    default: /* LSR and MSR are for factory tests */
        break;
    }
}

static const struct bus_ops port_ops = {
    .read = port_read, .write = port_write, .min_size = 1, .max_size = 1};

/* --- saving and loading
 * --------------------------------------------------------------------------- */

#define STATE_VERSION 1

/* What was sent is the machine's that sent it, not its copies'. */
static void drain(struct device *d)
{
    struct uart *u = container_of(d, struct uart, dev);

    vm_lock(u->vm);
    if (u->tx_held)
        on_room(u);
    else
        tx_flush(u);
    vm_unlock(u->vm);
}

static int save(const struct device *d, struct stream *out, const char **why)
{
    const struct uart *u = container_of(d, struct uart, dev);
    const u8 regs[] = {u->ier, u->fcr, u->lcr, u->mcr, u->msr, u->scr, u->lsr};

    (void)why;
    stream_put_u16(out, STATE_VERSION);
    stream_put(out, regs, sizeof(regs));
    stream_put_u16(out, u->divisor);
    stream_put_u8(out, u->thri);
    stream_put_u8(out, u->timeout);
    stream_put_u8(out, (u8)u->rx_n);
    for (unsigned i = 0; i < u->rx_n; i++)
        stream_put_u8(out, u->rx[(u->rx_head + i) % FIFO_SIZE]);
    vtimer_save(&u->rx_timer, out);
    stream_put_u8(out, (u8)u->tx_n);
    stream_put(out, u->tx, u->tx_n);
    stream_put_u8(out, u->tx_held);
    return out->error;
}

static int load(struct device *d, struct stream *in)
{
    struct uart *u = container_of(d, struct uart, dev);
    u8 regs[7], rx[FIFO_SIZE], tx[sizeof(u->tx)], rx_n, tx_n;

    stream_expect(in, stream_get_u16(in) == STATE_VERSION);
    stream_get(in, regs, sizeof(regs));
    stream_expect(in, !(regs[0] & ~0x0f));
    stream_expect(in, regs[1] & FCR_ENABLE ? !(regs[1] & ~0xc9) : !regs[1]);
    stream_expect(in, !(regs[3] & ~0x1f) && !(regs[6] & ~(LSR_OE | LSR_BI)));
    u->divisor = stream_get_u16(in);
    u->thri = stream_get_bool(in);
    u->timeout = stream_get_bool(in);
    rx_n = stream_get_u8(in);
    stream_expect(in, rx_n <= (regs[1] & FCR_ENABLE ? FIFO_SIZE : 1));
    if (in->error)
        return in->error;
    stream_get(in, rx, rx_n);
    vtimer_load(&u->rx_timer, in);
    tx_n = stream_get_u8(in);
    stream_expect(in, tx_n <= sizeof(tx));
    if (in->error)
        return in->error;
    stream_get(in, tx, tx_n);
    u->tx_held = stream_get_bool(in);
    u->ier = regs[0];
    u->fcr = regs[1];
    u->lcr = regs[2];
    u->mcr = regs[3];
    u->msr = regs[4];
    u->scr = regs[5];
    u->lsr = regs[6];
    u->rx_head = 0;
    u->rx_n = rx_n;
    for (unsigned i = 0; i < rx_n; i++)
        u->rx[i] = rx[i];
    u->tx_n = tx_n;
    for (unsigned i = 0; i < tx_n; i++)
        u->tx[i] = tx[i];
    vtimer_cancel(&u->tx_timer);
    return in->error;
}

/* The other end is another one than before: it may take what the old one did not. */
static void loaded(struct device *d)
{
    struct uart *u = container_of(d, struct uart, dev);

    if (u->tx_held)
        on_room(u);
    else
        tx_flush(u);
    if (rx_room(u))
        kick_input(u);
}

/* --- life cycle
 * ------------------------------------------------------------------------------------ */

static void reset(struct device *d)
{
    struct uart *u = container_of(d, struct uart, dev);

    tx_flush(u);
    clear_rx(u);
    u->ier = u->fcr = u->lcr = u->mcr = u->lsr = u->scr = 0;
    u->divisor = 12; /* 9600 baud, as a BIOS leaves it */
    u->thri = false;
    u->msr = modem_inputs(u);
    update_irq(u);
}

static void destroy(struct device *d)
{
    struct uart *u = container_of(d, struct uart, dev);

    tx_flush(u);
    vtimer_cancel(&u->rx_timer);
    if (u->chr) {
        u->chr->on_input = NULL;
        if (u->chr->holds)
            u->chr->on_writable = NULL;
        u->chr->dev = NULL;
    }
    host_free(u);
}

static const struct device_ops ops = {.name = "uart",
                                      .reset = reset,
                                      .drain = drain,
                                      .save = save,
                                      .load = load,
                                      .loaded = loaded,
                                      .destroy = destroy};

struct device *uart_create(struct vm *vm, const struct uart_config *cfg)
{
    struct uart *u = host_zalloc(sizeof(*u));

    if (!u)
        return NULL;
    u->dev.ops = &ops;
    u->vm = vm;
    u->irq = cfg->irq;
    u->chr = cfg->chr;
    vtimer_init(&u->rx_timer, vm, rx_timer_fired, u);
    vtimer_init(&u->tx_timer, vm, tx_timer_fired, u);
    if (bus_add(&vm->pio, cfg->base, 8, &port_ops, u, "uart")) {
        host_free(u);
        return NULL;
    }
    if (u->chr) {
        u->chr->dev = u;
        u->chr->on_input = on_input;
        if (u->chr->holds)
            u->chr->on_writable = on_room;
    }
    reset(&u->dev);
    vm_add_device(vm, &u->dev);
    return &u->dev;
}
