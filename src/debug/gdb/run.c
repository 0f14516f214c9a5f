/* SPDX-License-Identifier: Apache-2.0 */
/* Resuming, stopping and what is waited for. */
#include <errno.h>

#include "debug/gdb/session_priv.h"

/* --- stopping */

static const char *watch_name(enum debug_point_kind kind)
{
    return kind == DEBUG_WATCH_WRITE ? "watch" : kind == DEBUG_WATCH_READ ? "rwatch" : "awatch";
}

static int find_break(const struct gdb_session *g, u64 lin)
{
    for (unsigned i = 0; i < g->nbreaks; i++)
        if (g->brk[i].lin == lin)
            return (int)i;
    return -1;
}

static void add_reason(struct gdb_session *g)
{
    int at;

    switch (g->stop.reason) {
    case DEBUG_STOP_BREAK:
        at = find_break(g, g->stop.addr);
        /* A reason that the program counter does not bear out, as in segmented code, makes gdb
         * go on in silence. */
        if (at < 0 || g->stop_pc != g->stop.addr)
            break;
        if ((g->brk[at].types & 2) && g->hwbreak)
            gdb_out_text(&g->out, "hwbreak:;");
        else if ((g->brk[at].types & 1) && g->swbreak)
            gdb_out_text(&g->out, "swbreak:;");
        break;
    case DEBUG_STOP_WATCH:
        gdb_out_text(&g->out, watch_name(g->stop.kind));
        gdb_out_char(&g->out, ':');
        gdb_out_number(&g->out, g->stop.addr);
        gdb_out_char(&g->out, ';');
        break;
    case DEBUG_STOP_STEP:
    case DEBUG_STOP_DEAD:
        break;
    }
}

void gdb_send_stop(struct gdb_session *g)
{
    u8 signal = (u8)g->stop_signal;

    gdb_out_begin(&g->out);
    gdb_out_char(&g->out, 'T');
    gdb_out_hex(&g->out, &signal, 1);
    gdb_out_text(&g->out, "thread:");
    gdb_out_number(&g->out, gdb_thread(g->stop_cpu));
    gdb_out_char(&g->out, ';');
    if (g->stop_known)
        add_reason(g);
    gdb_send_out(g);
}

static void stop_at(struct gdb_session *g, unsigned cpu, unsigned signal)
{
    g->stop_cpu = g->cpu = cpu;
    g->resume_cpu = -1;
    g->stop_signal = signal;
    g->stop_known = false;
}

void gdb_stopped(void *opaque, struct vcpu *v)
{
    struct gdb_session *g = opaque;
    struct x86_vcpu_state s;

    stop_at(g, v->id, v->stop.reason == DEBUG_STOP_DEAD ? SIGNAL_ABRT : SIGNAL_TRAP);
    g->stop = v->stop;
    g->stop_known = !g->c.vm->engine->get_state(v, &s);
    g->stop_pc = s.rip;
    g->waiting = false;
    gdb_send_stop(g);
}

/* The vCPU shown after an interrupt: one that was doing something. */
static unsigned busy_cpu(struct gdb_session *g)
{
    struct x86_vcpu_state s;

    for (unsigned i = 0; i < g->c.vm->nvcpus; i++)
        if (!g->c.vm->engine->get_state(g->c.vm->vcpu[i], &s) && s.activity == X86_RUNNING)
            return i;
    return 0;
}

void gdb_interrupt(struct gdb_session *g)
{
    if (!g->waiting)
        return;
    vm_debug_interrupt(g->c.vm);
    stop_at(g, busy_cpu(g), SIGNAL_INT);
    g->waiting = false;
    gdb_send_stop(g);
}

/* --- going on */

static void go(struct gdb_session *g, const struct debug_order *order)
{
    bool any = false;
    int err;

    for (unsigned i = 0; i < g->c.vm->nvcpus; i++)
        any |= order[i].action != DEBUG_HOLD;
    if (!any) {
        gdb_error(g, -EINVAL);
        return;
    }
    g->waiting = true; /* the answer may come before vm_debug_go returns */
    err = vm_debug_go(g->c.vm, order);
    if (err) {
        g->waiting = false;
        gdb_error(g, err);
    }
}

/* One action of vCont: c, Cxx, s, Sxx, rSTART,END. Signals have no meaning for a machine. */
static bool parse_action(struct gdb_session *g, const char **p, struct debug_order *o)
{
    u64 v;

    *o = (struct debug_order){.step.no_irq = !g->step_irq};
    switch (*(*p)++) {
    case 'c':
        o->action = DEBUG_RUN;
        return true;
    case 'C':
        o->action = DEBUG_RUN;
        return gdb_number(p, &v);
    case 's':
        o->action = DEBUG_STEP;
        return true;
    case 'S':
        o->action = DEBUG_STEP;
        return gdb_number(p, &v);
    case 'r':
        o->action = DEBUG_STEP;
        return gdb_number(p, &o->step.lo) && gdb_literal(p, ",") && gdb_number(p, &o->step.hi);
    default:
        return false;
    }
}

/* The vCPUs [*first, *last] a thread id names; 0 and -1 are all. */
static bool parse_thread(struct gdb_session *g, const char **p, unsigned *first, unsigned *last)
{
    u64 id;

    *first = 0;
    *last = g->c.vm->nvcpus - 1;
    if (gdb_literal(p, "-1"))
        return true;
    if (!gdb_number(p, &id) || id > g->c.vm->nvcpus)
        return false;
    if (id)
        *first = *last = (unsigned)id - 1;
    return true;
}

void gdb_vcont(struct gdb_session *g, const char *p)
{
    struct debug_order order[VM_VCPUS_MAX] = {{0}}, o;
    bool set[VM_VCPUS_MAX] = {false};
    unsigned first, last;

    if (*p == '?') {
        gdb_reply(g, "vCont;c;C;s;S;r");
        return;
    }
    do {
        first = 0;
        last = g->c.vm->nvcpus - 1;
        if (!gdb_literal(&p, ";") || !parse_action(g, &p, &o) ||
            (gdb_literal(&p, ":") && !parse_thread(g, &p, &first, &last))) {
            gdb_error(g, -EINVAL);
            return;
        }
        /* The leftmost action that names a thread is its. */
        for (unsigned i = first; i <= last; i++)
            if (!set[i]) {
                order[i] = o;
                set[i] = true;
            }
    } while (*p);
    go(g, order);
}

/* c and s (with an address to go on at) and C and S (with a signal before it). */
void gdb_continue(struct gdb_session *g, const char *p, bool step)
{
    struct debug_order order[VM_VCPUS_MAX] = {{0}};
    unsigned cpu = g->resume_cpu >= 0 ? (unsigned)g->resume_cpu : g->cpu;

    if (*p) { /* gdb sets the program counter itself */
        gdb_error(g, -EINVAL);
        return;
    }
    for (unsigned i = 0; i < g->c.vm->nvcpus; i++)
        if (step && i == cpu)
            order[i] = (struct debug_order){.action = DEBUG_STEP, .step.no_irq = !g->step_irq};
        else if (g->resume_cpu < 0 || i == cpu)
            order[i].action = DEBUG_RUN;
    go(g, order);
}

/* --- points */

static int change_break(struct gdb_session *g, u64 lin, u8 type, bool insert)
{
    int at = find_break(g, lin), err;

    if (insert) {
        if (at < 0) {
            err = vm_debug_insert(g->c.vm, DEBUG_BREAK, lin, 0);
            if (err)
                return err;
            at = (int)g->nbreaks++;
            g->brk[at].lin = lin;
            g->brk[at].types = 0;
        }
        g->brk[at].types |= type;
        return 0;
    }
    if (at < 0 || !(g->brk[at].types & type))
        return 0; /* the packets may come twice */
    g->brk[at].types &= (u8)~type;
    if (g->brk[at].types)
        return 0;
    g->brk[at] = g->brk[--g->nbreaks];
    return vm_debug_remove(g->c.vm, DEBUG_BREAK, lin, 0);
}

static int change_watch(struct gdb_session *g, enum debug_point_kind kind, u64 lin, u64 len,
                        bool insert)
{
    int err = insert ? vm_debug_insert(g->c.vm, kind, lin, len)
                     : vm_debug_remove(g->c.vm, kind, lin, len);

    return err == -EEXIST || err == -ENOENT ? 0 : err;
}

/* Z type,addr,kind and z. Conditions and commands were not offered. */
void gdb_point(struct gdb_session *g, const char *p, bool insert)
{
    static const enum debug_point_kind kinds[] = {DEBUG_BREAK, DEBUG_BREAK, DEBUG_WATCH_WRITE,
                                                  DEBUG_WATCH_READ, DEBUG_WATCH_ACCESS};
    u64 type, lin, len;
    int err;

    if (!gdb_number(&p, &type) || !gdb_literal(&p, ",") || !gdb_number(&p, &lin) ||
        !gdb_literal(&p, ",") || !gdb_number(&p, &len) || *p) {
        gdb_error(g, -EINVAL);
        return;
    }
    if (type >= ARRAY_SIZE(kinds)) {
        gdb_reply(g, "");
        return;
    }
    if (kinds[type] == DEBUG_BREAK)
        err = change_break(g, lin, type ? 2 : 1, insert);
    else
        err = change_watch(g, kinds[type], lin, len, insert);
    if (err)
        gdb_error(g, err);
    else
        gdb_reply(g, "OK");
}
