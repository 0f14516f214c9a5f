/* SPDX-License-Identifier: Apache-2.0 */
/* Commands typed after `monitor` in gdb. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "debug/gdb/session_priv.h"

typedef void command_fn(struct gdb_session *g, FILE *out, const char *arg);

static void cmd_help(struct gdb_session *g, FILE *out, const char *arg);

static bool parse_number(const char *arg, u64 *v)
{
    char *end;

    if (!*arg || *arg == '-')
        return false;
    errno = 0;
    *v = strtoull(arg, &end, 0);
    return !*end && !errno;
}

static void dump_cpu(struct gdb_session *g, FILE *out, unsigned n)
{
    struct x86_vcpu_state s;

    if (!g->c.vm->engine->get_state(g->c.vm->vcpu[n], &s) && g->c.dump)
        g->c.dump(out, n, &s, &g->c.vm->mem);
}

static void cmd_regs(struct gdb_session *g, FILE *out, const char *arg)
{
    u64 n;

    if (!*arg) {
        dump_cpu(g, out, g->cpu);
    } else if (!strcmp(arg, "all")) {
        for (unsigned i = 0; i < g->c.vm->nvcpus; i++)
            dump_cpu(g, out, i);
    } else if (parse_number(arg, &n) && n < g->c.vm->nvcpus) {
        dump_cpu(g, out, (unsigned)n);
    } else {
        fprintf(out, "regs: there is no virtual CPU '%s'\n", arg);
    }
}

static void cmd_info(struct gdb_session *g, FILE *out, const char *arg)
{
    struct vm *vm = g->c.vm;

    (void)arg;
    fprintf(out, "engine %s, %u virtual CPU%s, clock at %llu us\n", vm->engine->name, vm->nvcpus,
            vm->nvcpus == 1 ? "" : "s", (unsigned long long)vm_clock_ns(vm) / 1000);
    for (unsigned i = 0; i < vm->mem.n; i++)
        fprintf(out, "%s %012llx-%012llx\n", vm->mem.slot[i].readonly ? "rom" : "ram",
                (unsigned long long)vm->mem.slot[i].gpa,
                (unsigned long long)(vm->mem.slot[i].gpa + vm->mem.slot[i].size - 1));
    fprintf(out, "memory addresses are %s, interrupts %s while stepping\n",
            g->physical ? "physical" : "virtual", g->step_irq ? "are taken" : "wait");
}

static void stats_line(void *opaque, const char *name, u64 value)
{
    fprintf(opaque, "%-20s %llu\n", name, (unsigned long long)value);
}

static void cmd_stats(struct gdb_session *g, FILE *out, const char *arg)
{
    (void)arg;
    if (g->c.vm->engine->stats)
        g->c.vm->engine->stats(g->c.vm, stats_line, out);
}

static void cmd_gva2gpa(struct gdb_session *g, FILE *out, const char *arg)
{
    struct x86_vcpu_state s;
    u64 lin, phys;

    if (!parse_number(arg, &lin))
        fprintf(out, "gva2gpa: give an address\n");
    else if (g->c.vm->engine->get_state(g->c.vm->vcpu[g->cpu], &s) ||
             !gdb_translate(g->c.vm, &s, lin, &phys))
        fprintf(out, "not mapped\n");
    else
        fprintf(out, "%#llx\n", (unsigned long long)phys);
}

static void on_off(FILE *out, const char *name, const char *arg, bool *value)
{
    if (!strcmp(arg, "on"))
        *value = true;
    else if (!strcmp(arg, "off"))
        *value = false;
    else if (*arg)
        fprintf(out, "%s: on or off\n", name);
    else
        fprintf(out, "%s\n", *value ? "on" : "off");
}

static void cmd_phys(struct gdb_session *g, FILE *out, const char *arg)
{
    on_off(out, "phys", arg, &g->physical);
}

static void cmd_step_irq(struct gdb_session *g, FILE *out, const char *arg)
{
    on_off(out, "step-irq", arg, &g->step_irq);
}

static void cmd_quit(struct gdb_session *g, FILE *out, const char *arg)
{
    (void)arg;
    fprintf(out, "the virtual machine is ended\n");
    vm_stop(g->c.vm, VM_QUIT, 0, "ended by the debugger");
}

static const struct {
    const char *name, *arg, *what;
    command_fn *fn;
} commands[] = {
    {"help", "", "this list", cmd_help},
    {"info", "", "the machine and the settings below", cmd_info},
    {"regs", "[CPU|all]", "all registers, hidden parts of segments too", cmd_regs},
    {"gva2gpa", "ADDRESS", "what a virtual address is mapped to", cmd_gva2gpa},
    {"phys", "[on|off]", "take memory addresses for physical ones (maint flush dcache after it)",
     cmd_phys},
    {"step-irq", "[on|off]", "deliver interrupts while stepping (off at first)", cmd_step_irq},
    {"stats", "", "the engine's counters", cmd_stats},
    {"quit", "", "end the virtual machine", cmd_quit},
};

static void cmd_help(struct gdb_session *g, FILE *out, const char *arg)
{
    (void)g;
    (void)arg;
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        fprintf(out, "%-9s%-11s%s\n", commands[i].name, commands[i].arg, commands[i].what);
}

/* Text in O packets of what fits, then OK. */
static void send_text(struct gdb_session *g, const char *text, size_t n)
{
    while (n) {
        size_t part = n < GDB_PACKET_MAX / 4 ? n : GDB_PACKET_MAX / 4;

        gdb_out_begin(&g->out);
        gdb_out_char(&g->out, 'O');
        gdb_out_hex(&g->out, text, part);
        gdb_send_out(g);
        text += part;
        n -= part;
    }
    gdb_reply(g, "OK");
}

void gdb_monitor(struct gdb_session *g, const char *command)
{
    size_t n = strcspn(command, " "), size = 0;
    const char *arg = command + n + strspn(command + n, " ");
    char *text = NULL;
    FILE *out = open_memstream(&text, &size);
    size_t i;

    if (!out) {
        gdb_error(g, -ENOMEM);
        return;
    }
    for (i = 0; i < ARRAY_SIZE(commands); i++)
        if (strlen(commands[i].name) == n && !strncmp(commands[i].name, command, n)) {
            commands[i].fn(g, out, arg);
            break;
        }
    if (i == ARRAY_SIZE(commands))
        fprintf(out, "no such command; monitor help lists them\n");
    if (fclose(out) || !text)
        gdb_error(g, -ENOMEM);
    else
        send_text(g, text, size);
    free(text);
}
