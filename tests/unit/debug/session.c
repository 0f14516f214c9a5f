/* SPDX-License-Identifier: Apache-2.0 */
/* The protocol as a debugger sees it, on a machine with an engine that only records. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/debug.h"
#include "core/vcpu_priv.h"
#include "debug/gdb/packet.h"
#include "debug/gdb/session.h"
#include "fake_host.h"
#include "test.h"

static struct machine *mach;
static struct gdb_session *g;
static char sent[1 << 20];
static size_t nsent;
static unsigned done;

static void on_send(void *opaque, const void *buf, size_t n)
{
    (void)opaque;
    assert_true(nsent + n < sizeof(sent));
    memcpy(sent + nsent, buf, n);
    nsent += n;
    sent[nsent] = 0;
}

static void on_done(void *opaque)
{
    (void)opaque;
    done++;
}

static void on_dump(FILE *out, unsigned n, const struct x86_vcpu_state *s,
                    const struct guest_mem *m)
{
    (void)s;
    (void)m;
    fprintf(out, "dump of %u\n", n);
}

static void open_session(unsigned cpus, enum gdb_arch arch)
{
    struct gdb_session_config c = {.arch = arch, .send = on_send, .done = on_done, .dump = on_dump};
    char err[100];

    mach = machine_new(cpus);
    c.vm = &mach->vm;
    done = 0;
    nsent = 0;
    sent[0] = 0;
    g = gdb_session_open(&c, err, sizeof(err));
    assert_non_null(g);
}

static void close_session(void)
{
    gdb_session_close(g);
    machine_free(mach);
}

static void send_packet(const char *data)
{
    static char frame[40000];
    u8 sum = 0;

    for (const char *c = data; *c; c++)
        sum = (u8)(sum + (u8)*c);
    snprintf(frame, sizeof(frame), "$%s#%02x", data, sum);
    nsent = 0;
    sent[0] = 0;
    gdb_session_input(g, (const u8 *)frame, strlen(frame));
}

/* The data of the one answer. */
static const char *ask(const char *data)
{
    static char text[40000];
    char *end;

    send_packet(data);
    assert_int_equal(sent[0], '+');
    assert_int_equal(sent[1], '$');
    end = strchr(sent, '#');
    assert_non_null(end);
    assert_int_equal(end - sent + 3, nsent);
    memcpy(text, sent + 2, (size_t)(end - sent) - 2);
    text[end - sent - 2] = 0;
    return text;
}

#define ASK(data, want) assert_string_equal(ask(data), want)

static void session__greets(void **state)
{
    (void)state;
    open_session(2, GDB_X86_64);
    assert_non_null(strstr(ask("qSupported:swbreak+;hwbreak+"), "PacketSize=4000;"));
    ASK("vMustReplyEmpty", "");
    ASK("?", "T05thread:1;");
    ASK("qfThreadInfo", "m1,2");
    ASK("qsThreadInfo", "l");
    ASK("qC", "QC1");
    ASK("Hg2", "OK");
    ASK("qC", "QC2");
    ASK("Hg3", "E16");
    ASK("Hx1", "E16");
    ASK("H", "E16");
    ASK("Hc-1", "OK");
    ASK("T2", "OK");
    ASK("T3", "E16");
    ASK("T0", "E16");
    ASK("qAttached", "1");
    ASK("vCont?", "vCont;c;C;s;S;r");
    ASK("qThreadExtraInfo,2", "4350552331205b77616974696e6720666f7220534950495d");
    ASK("qNothing", "");
    ASK("unknown", "");
    /* From the answer to this on, nothing is acknowledged. */
    ASK("QStartNoAckMode", "OK");
    send_packet("qC");
    assert_string_equal(sent, "$QC2#c6");
    close_session();
}

static void session__repeats_on_nak(void **state)
{
    (void)state;
    open_session(1, GDB_X86_64);
    ASK("qC", "QC1");
    nsent = 0;
    gdb_session_input(g, (const u8 *)"-", 1);
    assert_string_equal(sent, "$QC1#c5");
    nsent = 0;
    gdb_session_input(g, (const u8 *)"$qC#00", 6);
    assert_string_equal(sent, "-");
    close_session();
}

static void session__describes_registers(void **state)
{
    static char xml[GDB_XML_MAX + 1];
    size_t n = 0, size = 0;
    unsigned regs = 0;

    (void)state;
    open_session(1, GDB_X86_64);
    for (;;) {
        char q[64];
        const char *a;

        snprintf(q, sizeof(q), "qXfer:features:read:target.xml:%zx,400", n);
        a = ask(q);
        for (const char *c = a + 1; *c; c++) { /* nothing in it needs escapes but for what it has */
            assert_true(n < GDB_XML_MAX);
            xml[n++] = *c == '}' ? *++c ^ 0x20 : *c;
        }
        if (a[0] == 'l')
            break;
        assert_int_equal(a[0], 'm');
    }
    assert_non_null(strstr(xml, "</target>"));
    assert_string_equal(xml + n - 9, "</target>");
    for (const char *at = xml; (at = strstr(at, "<reg ")); at++) {
        unsigned bits, num;
        const char *b = strstr(at, "bitsize=\""), *r = strstr(at, "regnum=\"");

        assert_int_equal(sscanf(b, "bitsize=\"%u\"", &bits), 1);
        assert_int_equal(sscanf(r, "regnum=\"%u\"", &num), 1);
        assert_int_equal(num, regs);
        regs++;
        size += bits / 4;
    }
    assert_true(regs > 60);
    assert_int_equal(strlen(ask("g")), size);
    ASK("qXfer:features:read:other.xml:0,400", "E00");
    ASK("qXfer:features:read:target.xml:ffffff,400", "E00");
    close_session();
}

static void session__describes_a_wide_cpu(void **state)
{
    static struct x86_cpu_model m;
    static struct gdb_regs r;
    static const struct {
        u32 comp, off;
    } comps[] = {{2, 576}, {5, 1088}, {6, 1152}, {7, 1664}};

    (void)state;
    memset(&m, 0, sizeof(m));
    m.xcr0_valid = 0xe7;
    for (unsigned i = 0; i < ARRAY_SIZE(comps); i++)
        m.entry[m.n++] = (struct x86_cpuid_entry){
            .leaf = 0xd, .subleaf = comps[i].comp, .has_subleaf = true, .ebx = comps[i].off};
    for (unsigned arch = GDB_X86_64; arch <= GDB_I386; arch++) {
        struct x86_vcpu_state s;
        struct vcpu v = {.id = 0};

        gdb_regs_init(&r, (enum gdb_arch)arch, &m);
        assert_string_equal(r.xml + r.xml_len - 9, "</target>");
        assert_true(r.n < GDB_REGS_MAX);
        memset(&s, 0, sizeof(s));
        /* Vector registers are each its own, and come back as written. */
        for (unsigned i = 0; i < r.n; i++) {
            u8 buf[GDB_REG_SIZE_MAX];

            if (r.reg[i].kind < GDB_REG_XMM || r.reg[i].kind > GDB_REG_MASK)
                continue;
            memset(buf, (int)i, sizeof(buf));
            assert_int_equal(gdb_reg_set(&r, &v, &s, i, buf), 0);
        }
        for (unsigned i = 0; i < r.n; i++) {
            u8 buf[GDB_REG_SIZE_MAX], want[GDB_REG_SIZE_MAX];

            if (r.reg[i].kind < GDB_REG_XMM || r.reg[i].kind > GDB_REG_MASK)
                continue;
            memset(want, (int)i, sizeof(want));
            gdb_reg_get(&r, &v, &s, i, buf);
            assert_memory_equal(buf, want, r.reg[i].size);
        }
    }
}

static void session__registers(void **state)
{
    struct x86_vcpu_state *s;
    char all[20000];

    (void)state;
    open_session(1, GDB_X86_64);
    s = &mach->cpu[0].s;
    s->gpr[X86_RBX] = 0x1122334455667788;
    ASK("p1", "8877665544332211");
    ASK("P1=0100000000000080", "OK");
    assert_true(s->gpr[X86_RBX] == 0x8000000000000001);
    ASK("p10", "f0ff000000000000"); /* RIP after RESET */
    ASK("P10=7856341200000000", "OK");
    assert_int_equal(s->rip, 0x12345678);
    ASK("P12=00100000", "OK"); /* real mode: CS has a base */
    assert_int_equal(s->seg[X86_CS].base, 0x10000);
    ASK("P11=020002", "E16");
    ASK("P11=02000200", "E16"); /* VM */
    ASK("P11=02020000", "OK");
    assert_int_equal(s->rflags, 0x202);
    ASK("pffff", "E16");
    ASK("p", "E16");
    ASK("P1", "E16");
    ASK("P1=zz", "E16");
    snprintf(all, sizeof(all), "G%s", ask("g"));
    all[1] = 'a';
    all[2] = '5';
    ASK(all, "OK");
    assert_int_equal(s->gpr[X86_RAX] & 0xff, 0xa5);
    all[strlen(all) - 1] = 0;
    ASK(all, "E16");
    close_session();

    open_session(1, GDB_I386);
    s = &mach->cpu[0].s;
    s->gpr[X86_RCX] = 0x1122334455667788;
    ASK("p1", "88776655");
    close_session();
}

static void session__memory(void **state)
{
    (void)state;
    open_session(1, GDB_X86_64);
    memcpy(mach->ram + 0x1000, "hello", 5);
    ASK("m1000,5", "68656c6c6f");
    ASK("m1000,0", "");
    /* What is there of it; nothing: an error. */
    ASK("m1ffffe,10", "0000");
    ASK("m200000,10", "E0e");
    ASK("mffffffffffffffff,10", "E0e");
    ASK("m1000", "E16");
    ASK("m1000,5x", "E16");
    ASK("M1001,2:414a", "OK");
    assert_memory_equal(mach->ram + 0x1000, "hAJlo", 5);
    assert_int_equal(mach->written_gpa, 0x1001);
    assert_int_equal(mach->written_len, 2);
    ASK("M1001,3:4141", "E16");
    ASK("M1001,1:4141", "E16");
    ASK("M1fffff,2:4141", "E0e");
    ASK("X1000,4:ab}\x03z", "OK"); /* an escaped # */
    assert_memory_equal(mach->ram + 0x1000, "ab#z", 4);
    ASK("X1000,5:abcd", "E16");
    ASK("X0,0:", "OK");
    ASK("X0,fffffffffffffff:a", "E16");
    assert_int_equal(strlen(ask("m0,ffffffff")), GDB_PACKET_MAX);
    ASK("qqemu.PhyMemMode", "0");
    ASK("Qqemu.PhyMemMode:1", "OK");
    ASK("qqemu.PhyMemMode", "1");
    ASK("m1000,2", "6162");
    ASK("m100001000,2", "E0e"); /* not wrapped to 32 bits */
    close_session();
}

static void session__points(void **state)
{
    (void)state;
    open_session(1, GDB_X86_64);
    ask("qSupported:swbreak+;hwbreak+");
    ASK("Z0,1000,1", "OK");
    ASK("Z0,1000,1", "OK");
    ASK("Z1,1000,1", "OK");
    ASK("Z2,2000,8", "OK");
    ASK("Z4,3000,8", "OK");
    ASK("Z5,3000,8", "");
    ASK("Z2,3000,0", "E16");
    ASK("Z0,3000", "E16");
    ASK("z3,1234,1", "OK");
    ASK("z0,1000,1", "OK");
    send_packet("vCont;c");
    assert_string_equal(sent, "+");
    assert_int_equal(mach->points.nbreaks, 1); /* the hardware one is left */
    assert_int_equal(mach->points.nwatches, 2);

    nsent = 0;
    mach->cpu[0].s.rip = 0x1000;
    vcpu_debug_stopped(&mach->cpu[0].v,
                       &(struct debug_stop){.reason = DEBUG_STOP_BREAK, .addr = 0x1000});
    fake_settle();
    assert_non_null(strstr(sent, "$T05thread:1;hwbreak:;#"));
    ASK("z1,1000,1", "OK");
    send_packet("vCont;c");
    nsent = 0;
    vcpu_debug_stopped(&mach->cpu[0].v, &(struct debug_stop){.reason = DEBUG_STOP_WATCH,
                                                             .addr = 0x3000,
                                                             .kind = DEBUG_WATCH_ACCESS});
    fake_settle();
    assert_non_null(strstr(sent, "$T05thread:1;awatch:3000;#"));
    assert_int_equal(mach->points.nbreaks, 0);
    close_session();
    assert_int_equal(done, 0);
}

static void session__goes_on(void **state)
{
    struct vcpu *v;

    (void)state;
    open_session(2, GDB_X86_64);
    ASK("vCont", "E16");
    ASK("vCont;", "E16");
    ASK("vCont;x", "E16");
    ASK("vCont;c:3", "E16");
    ASK("vCont;r1000:1", "E16");
    ASK("vCont;cc", "E16");
    ASK("c1000", "E16");
    v = &mach->cpu[0].v;
    send_packet("vCont;r1000,1010:1;c");
    assert_string_equal(sent, "+");
    assert_true(v->debug.step && v->debug.no_irq);
    assert_int_equal(v->debug.lo, 0x1000);
    assert_int_equal(v->debug.hi, 0x1010);
    assert_false(mach->cpu[1].v.debug.step);
    assert_int_equal(mach->cpu[1].v.held, 0);
    assert_int_equal(mach->vm.pauses, 0);
    /* Only a few things may be said now. */
    ASK("g", "E10");
    nsent = 0;
    gdb_session_input(g, (const u8 *)"\x03", 1);
    assert_non_null(strstr(sent, "$T02thread:1;#"));
    assert_int_equal(mach->vm.pauses, 1);
    gdb_session_input(g, (const u8 *)"\x03", 1); /* nothing runs: nothing to stop */

    ASK("Qqemu.sstep=1", "OK");
    ASK("qqemu.sstep", "0x1");
    send_packet("vCont;S05:2");
    assert_int_equal(v->held, 1);
    assert_true(mach->cpu[1].v.debug.step && !mach->cpu[1].v.debug.no_irq);
    send_packet("vCtrlC");
    assert_string_equal(sent, "+$OK#9a$T02thread:1;#d4");
    close_session();
}

static void session__ends(void **state)
{
    (void)state;
    open_session(1, GDB_X86_64);
    ASK("Z0,1000,1", "OK");
    ASK("D", "OK");
    assert_int_equal(done, 1);
    assert_int_equal(mach->vm.pauses, 0);
    assert_null(mach->vm.debug);
    send_packet("g"); /* nobody listens any more */
    assert_int_equal(nsent, 0);
    gdb_session_vm_ended(g, 3);
    assert_int_equal(nsent, 0);
    close_session();

    open_session(1, GDB_X86_64);
    send_packet("vCont;c");
    nsent = 0;
    gdb_session_vm_ended(g, 0x7a);
    assert_string_equal(sent, "$W7a#ef");
    close_session();

    open_session(1, GDB_X86_64);
    send_packet("k");
    assert_int_equal(mach->vm.stop_reason, VM_QUIT);
    assert_int_equal(mach->vm.exit_code, 137);
    close_session();
}

static void session__monitor(void **state)
{
    (void)state;
    open_session(1, GDB_X86_64);
    send_packet("qRcmd,7265677320616c6c"); /* regs all */
    assert_string_equal(sent, "+$O64756d70206f6620300a#e6$OK#9a");
    send_packet("qRcmd,68656c70"); /* help */
    assert_non_null(strstr(sent, "$OK#9a"));
    send_packet("qRcmd,"); /* nothing */
    assert_non_null(strstr(sent, "$OK#9a"));
    ASK("qRcmd,6", "E16");
    ASK("qRcmd,zz", "E16");
    close_session();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(session__greets),
        cmocka_unit_test(session__repeats_on_nak),
        cmocka_unit_test(session__describes_registers),
        cmocka_unit_test(session__describes_a_wide_cpu),
        cmocka_unit_test(session__registers),
        cmocka_unit_test(session__memory),
        cmocka_unit_test(session__points),
        cmocka_unit_test(session__goes_on),
        cmocka_unit_test(session__ends),
        cmocka_unit_test(session__monitor),
    };
    return cmocka_run_group_tests_name("debug-session", tests, NULL, NULL);
}
