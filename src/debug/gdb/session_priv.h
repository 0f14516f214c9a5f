/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of the session. */
#ifndef TRIVISOR_DEBUG_GDB_SESSION_PRIV_H
#define TRIVISOR_DEBUG_GDB_SESSION_PRIV_H

#include "core/debug.h"
#include "debug/gdb/packet.h"
#include "debug/gdb/session.h"

/* Signal numbers of the protocol (gdb's own, here equal to Linux'). */
enum { SIGNAL_INT = 2, SIGNAL_TRAP = 5, SIGNAL_ABRT = 6 };

struct gdb_session {
    struct gdb_session_config c;
    struct gdb_parser in;
    struct gdb_out out;
    size_t last_frame; /* bytes of out.frame to send again on a NAK */
    bool attached;     /* to the VM */
    bool no_ack;
    bool swbreak, hwbreak; /* gdb knows these stop reasons */
    bool waiting;          /* gdb waits for a stop reply */
    bool ended;            /* no more packets are looked at */
    bool physical;         /* addresses are guest-physical */
    bool step_irq;         /* interrupts are delivered while stepping */
    unsigned cpu;          /* selected for registers and memory (Hg) */
    int resume_cpu;        /* selected for c and s (Hc); -1: all */
    unsigned next_listed;  /* of qfThreadInfo, qsThreadInfo */
    /* The last stop, for '?'. */
    unsigned stop_cpu, stop_signal;
    struct debug_stop stop;
    bool stop_known; /* `stop` says why */
    u64 stop_pc;
    /* Breakpoints and what gdb calls them: to the engine all are the same. */
    unsigned nbreaks;
    struct {
        u64 lin;
        u8 types; /* bit 0: Z0, bit 1: Z1 */
    } brk[DEBUG_BREAKS_MAX];
    struct gdb_regs regs;
};

/* Threads of the protocol are numbered from 1. */
static inline unsigned gdb_thread(unsigned cpu)
{
    return cpu + 1;
}

/* --- session.c: answers */
void gdb_reply(struct gdb_session *g, const char *text);
void gdb_error(struct gdb_session *g, int err); /* err: -errno */
void gdb_send_out(struct gdb_session *g);       /* g->out is complete */
/* The selected vCPU and its state. false: an error was answered. */
bool gdb_state(struct gdb_session *g, struct x86_vcpu_state *s);

/* --- query.c: packets that begin with q and Q */
void gdb_query(struct gdb_session *g, const char *p);
void gdb_set(struct gdb_session *g, const char *p);

/* --- monitor.c: qRcmd */
void gdb_monitor(struct gdb_session *g, const char *command);

/* --- run.c: resuming and stopping */
void gdb_send_stop(struct gdb_session *g);
void gdb_stopped(void *opaque, struct vcpu *v); /* struct vm_debugger */
void gdb_interrupt(struct gdb_session *g);
void gdb_vcont(struct gdb_session *g, const char *p);               /* after "vCont" */
void gdb_continue(struct gdb_session *g, const char *p, bool step); /* c, s, C, S */
void gdb_point(struct gdb_session *g, const char *p, bool insert);  /* Z, z */

/* --- memory.c */
/* Guest-physical address of a linear one in an address space. false: not mapped. */
bool gdb_translate(const struct vm *vm, const struct x86_vcpu_state *s, u64 lin, u64 *phys);
/* Copies as much as is mapped RAM, up to len; how much it was. */
size_t gdb_read_memory(struct gdb_session *g, u64 addr, void *buf, size_t len);
/* Writes all of it or fails: -EFAULT. */
int gdb_write_memory(struct gdb_session *g, u64 addr, const void *buf, size_t len);

#endif
