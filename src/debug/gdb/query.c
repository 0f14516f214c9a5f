/* SPDX-License-Identifier: Apache-2.0 */
/* Packets that begin with q and Q. */
#include <errno.h>
#include <string.h>

#include "debug/gdb/session_priv.h"

static void supported(struct gdb_session *g, const char *p)
{
    g->swbreak = strstr(p, "swbreak+") != NULL;
    g->hwbreak = strstr(p, "hwbreak+") != NULL;
    gdb_out_begin(&g->out);
    gdb_out_text(&g->out, "PacketSize=");
    gdb_out_number(&g->out, GDB_PACKET_MAX);
    gdb_out_text(&g->out, ";QStartNoAckMode+;qXfer:features:read+;vContSupported+;swbreak+;"
                          "hwbreak+");
    gdb_send_out(g);
}

/* ANNEX:offset,length of the target description. */
static void read_features(struct gdb_session *g, const char *p)
{
    u64 off, len;

    if (!gdb_literal(&p, "target.xml:") || !gdb_number(&p, &off) || !gdb_literal(&p, ",") ||
        !gdb_number(&p, &len) || *p || off > g->regs.xml_len) {
        gdb_reply(g, "E00");
        return;
    }
    if (len > GDB_PACKET_MAX / 4)
        len = GDB_PACKET_MAX / 4;
    if (len > g->regs.xml_len - off)
        len = g->regs.xml_len - off;
    gdb_out_begin(&g->out);
    gdb_out_char(&g->out, off + len < g->regs.xml_len ? 'm' : 'l');
    gdb_out_binary(&g->out, g->regs.xml + off, len);
    gdb_send_out(g);
}

/* There are few: one answer holds them all. */
static void list_threads(struct gdb_session *g, bool first)
{
    if (!first) {
        gdb_reply(g, "l");
        return;
    }
    gdb_out_begin(&g->out);
    for (unsigned i = 0; i < g->c.vm->nvcpus; i++) {
        gdb_out_char(&g->out, i ? ',' : 'm');
        gdb_out_number(&g->out, gdb_thread(i));
    }
    gdb_send_out(g);
}

static void thread_extra_info(struct gdb_session *g, const char *p)
{
    static const char *const activity[] = {"running", "halted", "waiting for SIPI", "shut down"};
    struct x86_vcpu_state s;
    char text[64];
    u64 id;
    int n;

    if (!gdb_number(&p, &id) || *p || !id || id > g->c.vm->nvcpus) {
        gdb_error(g, -EINVAL);
        return;
    }
    if (g->c.vm->engine->get_state(g->c.vm->vcpu[id - 1], &s)) {
        gdb_error(g, -EIO);
        return;
    }
    n = snprintf(text, sizeof(text), "CPU#%u [%s]", (unsigned)id - 1,
                 s.activity < ARRAY_SIZE(activity) ? activity[s.activity] : "?");
    gdb_out_begin(&g->out);
    gdb_out_hex(&g->out, text, (size_t)n);
    gdb_send_out(g);
}

static void remote_command(struct gdb_session *g, const char *p)
{
    char command[256];
    size_t n = strlen(p) / 2;

    if (n >= sizeof(command) || !gdb_bytes(&p, command, n) || *p) {
        gdb_error(g, -EINVAL);
        return;
    }
    command[n] = 0;
    gdb_monitor(g, command);
}

/* What QEMU's stub calls the ways to step: 1 is on, 2 without interrupts, 4 without timers. Our
 * clock stands while the VM is stopped, so 4 comes with 2. */
static void sstep(struct gdb_session *g)
{
    gdb_reply(g, g->step_irq ? "0x1" : "0x7");
}

void gdb_query(struct gdb_session *g, const char *p)
{
    if (gdb_literal(&p, "Supported"))
        supported(g, p);
    else if (gdb_literal(&p, "Xfer:features:read:"))
        read_features(g, p);
    else if (!strcmp(p, "Attached"))
        gdb_reply(g, "1"); /* gdb's quit detaches rather than kills */
    else if (!strcmp(p, "C")) {
        gdb_out_begin(&g->out);
        gdb_out_text(&g->out, "QC");
        gdb_out_number(&g->out, gdb_thread(g->cpu));
        gdb_send_out(g);
    } else if (!strcmp(p, "fThreadInfo"))
        list_threads(g, true);
    else if (!strcmp(p, "sThreadInfo"))
        list_threads(g, false);
    else if (gdb_literal(&p, "ThreadExtraInfo,"))
        thread_extra_info(g, p);
    else if (gdb_literal(&p, "Rcmd,"))
        remote_command(g, p);
    else if (!strcmp(p, "qemu.sstepbits"))
        gdb_reply(g, "ENABLE=1,NOIRQ=2,NOTIMER=4");
    else if (!strcmp(p, "qemu.sstep"))
        sstep(g);
    else if (!strcmp(p, "qemu.PhyMemMode"))
        gdb_reply(g, g->physical ? "1" : "0");
    else
        gdb_reply(g, "");
}

void gdb_set(struct gdb_session *g, const char *p)
{
    u64 v;

    if (!strcmp(p, "StartNoAckMode")) {
        gdb_reply(g, "OK");
        g->no_ack = true;
    } else if (gdb_literal(&p, "qemu.PhyMemMode:") && gdb_number(&p, &v)) {
        g->physical = v != 0;
        gdb_reply(g, "OK");
    } else if (gdb_literal(&p, "qemu.sstep=") && (gdb_literal(&p, "0x") || true) &&
               gdb_number(&p, &v)) {
        g->step_irq = !(v & 2);
        gdb_reply(g, "OK");
    } else {
        gdb_reply(g, "");
    }
}
