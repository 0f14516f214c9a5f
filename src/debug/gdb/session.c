/* SPDX-License-Identifier: Apache-2.0 */
/* The session: packets in, answers out; registers and memory. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "debug/gdb/session_priv.h"

/* --- answers */

void gdb_send_out(struct gdb_session *g)
{
    if (g->out
            .full) { /* nothing we send is that long but by mistake of the sender of the request */
        gdb_out_begin(&g->out);
        gdb_out_text(&g->out, "E4b");
    }
    g->last_frame = gdb_out_end(&g->out);
    g->c.send(g->c.opaque, g->out.frame, g->last_frame);
}

void gdb_reply(struct gdb_session *g, const char *text)
{
    gdb_out_begin(&g->out);
    gdb_out_text(&g->out, text);
    gdb_send_out(g);
}

void gdb_error(struct gdb_session *g, int err)
{
    u8 code = (u8)-err;

    gdb_out_begin(&g->out);
    gdb_out_char(&g->out, 'E');
    gdb_out_hex(&g->out, &code, 1);
    gdb_send_out(g);
}

bool gdb_state(struct gdb_session *g, struct x86_vcpu_state *s)
{
    int err = g->c.vm->engine->get_state(g->c.vm->vcpu[g->cpu], s);

    if (err)
        gdb_error(g, err);
    return !err;
}

static void reply_ok(struct gdb_session *g, int err)
{
    if (err)
        gdb_error(g, err);
    else
        gdb_reply(g, "OK");
}

/* --- registers */

static void put_reg(struct gdb_session *g, const struct x86_vcpu_state *s, unsigned n)
{
    u8 buf[GDB_REG_SIZE_MAX];

    gdb_reg_get(&g->regs, g->c.vm->vcpu[g->cpu], s, n, buf);
    gdb_out_hex(&g->out, buf, g->regs.reg[n].size);
}

static int set_state(struct gdb_session *g, const struct x86_vcpu_state *s)
{
    return g->c.vm->engine->set_state(g->c.vm->vcpu[g->cpu], s);
}

static void read_all(struct gdb_session *g)
{
    struct x86_vcpu_state s;

    if (!gdb_state(g, &s))
        return;
    gdb_out_begin(&g->out);
    for (unsigned n = 0; n < g->regs.n; n++)
        put_reg(g, &s, n);
    gdb_send_out(g);
}

static void read_one(struct gdb_session *g, const char *p)
{
    struct x86_vcpu_state s;
    u64 n;

    if (!gdb_number(&p, &n) || *p || n >= g->regs.n) {
        gdb_error(g, -EINVAL);
        return;
    }
    if (!gdb_state(g, &s))
        return;
    gdb_out_begin(&g->out);
    put_reg(g, &s, (unsigned)n);
    gdb_send_out(g);
}

/* Takes the value of register n from hex text. */
static int take_reg(struct gdb_session *g, struct x86_vcpu_state *s, unsigned n, const char **p)
{
    u8 buf[GDB_REG_SIZE_MAX];

    if (!gdb_bytes(p, buf, g->regs.reg[n].size))
        return -EINVAL;
    return gdb_reg_set(&g->regs, g->c.vm->vcpu[g->cpu], s, n, buf);
}

static void write_all(struct gdb_session *g, const char *p)
{
    struct x86_vcpu_state s;
    int err = 0;

    if (!gdb_state(g, &s))
        return;
    for (unsigned n = 0; n < g->regs.n && !err; n++)
        err = take_reg(g, &s, n, &p);
    reply_ok(g, err ? err : set_state(g, &s));
}

static void write_one(struct gdb_session *g, const char *p)
{
    struct x86_vcpu_state s;
    u64 n;
    int err;

    if (!gdb_number(&p, &n) || n >= g->regs.n || !gdb_literal(&p, "=")) {
        gdb_error(g, -EINVAL);
        return;
    }
    if (!gdb_state(g, &s))
        return;
    err = take_reg(g, &s, (unsigned)n, &p);
    reply_ok(g, err ? err : set_state(g, &s));
}

/* --- memory */

/* addr,len */
static bool parse_range(const char **p, u64 *addr, u64 *len)
{
    return gdb_number(p, addr) && gdb_literal(p, ",") && gdb_number(p, len);
}

static void read_memory(struct gdb_session *g, const char *p)
{
    u8 buf[GDB_PACKET_MAX / 2];
    u64 addr, len;
    size_t n;

    if (!parse_range(&p, &addr, &len) || *p) {
        gdb_error(g, -EINVAL);
        return;
    }
    if (len > sizeof(buf))
        len = sizeof(buf);
    n = gdb_read_memory(g, addr, buf, len);
    if (len && !n) {
        gdb_error(g, -EFAULT);
        return;
    }
    gdb_out_begin(&g->out);
    gdb_out_hex(&g->out, buf, n);
    gdb_send_out(g);
}

/* M: hex; X: binary, to the end of the packet. */
static void write_memory(struct gdb_session *g, const char *p, bool binary)
{
    u8 buf[GDB_PACKET_MAX];
    u64 addr, len;
    bool good = parse_range(&p, &addr, &len) && gdb_literal(&p, ":") && len <= sizeof(buf);

    if (good && binary) {
        good = len == (size_t)(g->in.data + g->in.len - p);
        if (good)
            memcpy(buf, p, len);
    } else if (good) {
        good = gdb_bytes(&p, buf, len) && !*p;
    }
    reply_ok(g, good ? gdb_write_memory(g, addr, buf, len) : -EINVAL);
}

/* --- threads */

/* Hg and Hc: 0 is any, -1 all. */
static void select_thread(struct gdb_session *g, const char *p)
{
    char what = *p;
    u64 id = 0;
    bool all;

    if (what)
        p++;
    all = gdb_literal(&p, "-1");
    if ((what != 'g' && what != 'c') || (!all && !gdb_number(&p, &id)) || *p ||
        id > g->c.vm->nvcpus) {
        gdb_error(g, -EINVAL);
        return;
    }
    if (what == 'c')
        g->resume_cpu = (int)id - 1;
    else if (id)
        g->cpu = (unsigned)id - 1;
    gdb_reply(g, "OK");
}

static void thread_alive(struct gdb_session *g, const char *p)
{
    u64 id;

    if (gdb_number(&p, &id) && !*p && id && id <= g->c.vm->nvcpus)
        gdb_reply(g, "OK");
    else
        gdb_error(g, -EINVAL);
}

/* --- the end */

static void detach(struct gdb_session *g)
{
    if (g->attached)
        vm_debug_detach(g->c.vm);
    g->attached = false;
}

static void say_goodbye(struct gdb_session *g)
{
    detach(g);
    g->ended = true;
    g->waiting = false;
    g->c.done(g->c.opaque);
}

static void kill_vm(struct gdb_session *g)
{
    vm_stop(g->c.vm, VM_QUIT, 128 + 9, "killed by the debugger");
    say_goodbye(g);
}

/* --- dispatch */

static void v_packet(struct gdb_session *g, const char *p)
{
    if (gdb_literal(&p, "vCont")) {
        gdb_vcont(g, p);
    } else if (gdb_literal(&p, "vKill")) {
        gdb_reply(g, "OK");
        kill_vm(g);
    } else if (gdb_literal(&p, "vCtrlC")) {
        gdb_reply(g, "OK");
        gdb_interrupt(g);
    } else {
        gdb_reply(g, "");
    }
}

/* C and S carry a signal; what follows is an address. */
static const char *skip_signal(const char *p)
{
    u64 v;

    if (gdb_number(&p, &v))
        gdb_literal(&p, ";");
    return p;
}

static bool allowed_while_running(const char *p)
{
    return *p == 'D' || *p == 'k' || gdb_literal(&p, "vKill") || gdb_literal(&p, "vCtrlC");
}

static void packet(struct gdb_session *g)
{
    const char *p = g->in.data;

    if (g->waiting && !allowed_while_running(p)) {
        gdb_error(g, -EBUSY);
        return;
    }
    switch (*p++) {
    case '?':
        gdb_send_stop(g);
        break;
    case 'c':
    case 's':
        gdb_continue(g, p, p[-1] == 's');
        break;
    case 'C':
    case 'S':
        gdb_continue(g, skip_signal(p), p[-1] == 'S');
        break;
    case 'D':
        gdb_reply(g, "OK");
        say_goodbye(g);
        break;
    case 'g':
        read_all(g);
        break;
    case 'G':
        write_all(g, p);
        break;
    case 'H':
        select_thread(g, p);
        break;
    case 'k':
        kill_vm(g);
        break;
    case 'm':
        read_memory(g, p);
        break;
    case 'M':
    case 'X':
        write_memory(g, p, p[-1] == 'X');
        break;
    case 'p':
        read_one(g, p);
        break;
    case 'P':
        write_one(g, p);
        break;
    case 'q':
        gdb_query(g, p);
        break;
    case 'Q':
        gdb_set(g, p);
        break;
    case 'T':
        thread_alive(g, p);
        break;
    case 'v':
        v_packet(g, p - 1);
        break;
    case 'Z':
    case 'z':
        gdb_point(g, p, p[-1] == 'Z');
        break;
    default:
        gdb_reply(g, "");
        break;
    }
}

void gdb_session_input(struct gdb_session *g, const u8 *buf, size_t n)
{
    for (size_t i = 0; i < n && !g->ended; i++)
        switch (gdb_parse(&g->in, buf[i])) {
        case GDB_PACKET:
            if (!g->no_ack)
                g->c.send(g->c.opaque, "+", 1);
            packet(g);
            break;
        case GDB_BAD:
            if (!g->no_ack)
                g->c.send(g->c.opaque, "-", 1);
            break;
        case GDB_INTERRUPT:
            gdb_interrupt(g);
            break;
        case GDB_NAK:
            if (!g->no_ack && g->last_frame)
                g->c.send(g->c.opaque, g->out.frame, g->last_frame);
            break;
        case GDB_ACK:
        case GDB_NOTHING:
            break;
        }
}

struct gdb_session *gdb_session_open(const struct gdb_session_config *c, char *err, size_t err_size)
{
    struct gdb_session *g = calloc(1, sizeof(*g));
    struct vm_debugger by = {.stopped = gdb_stopped, .opaque = g};
    int r;

    if (!g) {
        snprintf(err, err_size, "out of memory");
        return NULL;
    }
    g->c = *c;
    gdb_regs_init(&g->regs, c->arch, &c->vm->cpu_model);
    g->resume_cpu = -1;
    g->stop_signal = SIGNAL_TRAP;
    r = vm_debug_attach(c->vm, &by);
    if (r) {
        snprintf(err, err_size, "%s",
                 r == -ENOTSUP ? "this engine cannot be debugged" : strerror(-r));
        free(g);
        return NULL;
    }
    g->attached = true;
    return g;
}

void gdb_session_vm_ended(struct gdb_session *g, int status)
{
    u8 code = (u8)status;

    if (g->waiting && !g->ended) {
        gdb_out_begin(&g->out);
        gdb_out_char(&g->out, 'W');
        gdb_out_hex(&g->out, &code, 1);
        gdb_send_out(g);
    }
    g->waiting = false;
    g->ended = true;
}

void gdb_session_close(struct gdb_session *g)
{
    detach(g);
    free(g);
}
