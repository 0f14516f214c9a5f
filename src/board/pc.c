/* SPDX-License-Identifier: Apache-2.0 */
/* Building the PC, running it, and what is said when it has stopped. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/char/console.h"
#include "base/log.h"
#include "board/acpi.h"
#include "board/dump.h"
#include "board/engines.h"
#include "board/host_cpu.h"
#include "board/layout.h"
#include "board/legacy.h"
#include "board/load.h"
#include "board/pc.h"
#include "board/pc_priv.h"
#include "board/pc_save.h"
#include "board/saved.h"
#include "control/server.h"
#include "core/host.h"
#include "core/listen.h"
#include "debug/gdb/gdb.h"
#include "x86/msr.h"

#define MIB (1ull << 20)

static int fail(struct pc *pc, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static int fail(struct pc *pc, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(pc->err, pc->err_size, fmt, ap);
    va_end(ap);
    return -EINVAL;
}

/* Options that exist before what they ask for does: said, not swallowed. */
static int refuse_unbuilt(struct pc *pc)
{
    if (!strcmp(pc->cfg->bt_mode, "lockstep") && pc->cfg->cpus > 1)
        return fail(pc, "--bt-mode lockstep takes one vCPU (-c 1)");
    if (!strcmp(pc->cfg->bt_mode, "lockstep") && pc->cfg->gdb)
        return fail(pc, "--gdb does not work with --bt-mode lockstep");
    if (pc->cfg->trace)
        return fail(pc, "--trace %s: engine bt traces nothing in this version", pc->cfg->trace);
    return 0;
}

static int create_engine(struct pc *pc)
{
    const struct config *cfg = pc->cfg;
    struct engine_options opt = {.trace = cfg->trace, .code_cache = cfg->bt_cache};
    const struct engine_ops *ops;
    char why[512];
    int r = engine_choose(cfg->engine, cfg->gdb != NULL, pc->ends.saved ? pc_restore_fits : NULL,
                          pc, &ops, why, sizeof(why));

    if (r)
        return fail(pc, "%s", why);
    r = refuse_unbuilt(pc);
    if (r)
        return r;
    if (cfg->gdb && !ops->set_debug)
        return fail(pc, "--gdb does not work with engine %s in this version; use --engine bt",
                    ops->name);
    snprintf(pc->chosen, sizeof(pc->chosen), "%s", why);
    vm_init(&pc->vm, ops);
    pc->vm.strict_io = cfg->strict_io;
    pc->vm.strict_msr = cfg->strict_msr;
    (pc->ends.saved ? host_cpu_model_every : host_cpu_model)(&pc->vm.cpu_model, (unsigned)cfg->cpus,
                                                             cfg->hide_kvm);
    if (strcmp(cfg->bt_mode, "auto"))
        opt.bt_mode = cfg->bt_mode;
    r = ops->vm_create(&pc->vm, &opt);
    if (r)
        return fail(pc, "engine %s: cannot create a virtual machine: %s", ops->name, strerror(-r));
    if (pc->ends.saved)
        return pc_restore_model(pc);
    return host_cpu_select(&pc->vm.cpu_model, (unsigned)cfg->cpus, cfg->hide_kvm, cfg->cpu,
                           ops->name, pc->err, pc->err_size);
}

static int add_ram(struct pc *pc, u64 base, u64 size, u64 offset)
{
    int r = guest_mem_add(&pc->vm.mem, gpa(base), size, (u8 *)pc->ram.ptr + offset, false);

    return r ? fail(pc, "memory at %#llx: %s", (unsigned long long)base, strerror(-r)) : 0;
}

static int create_memory(struct pc *pc)
{
    u64 size = pc->cfg->memory, host = host_total_memory(), limit = host_memory_limit();
    u64 low = e820_low_ram(size), high = e820_high_ram(size);
    unsigned bits = pc->vm.cpu_model.phys_bits;
    int r;

    if (host && size > host)
        return fail(pc, "-m: %llu MiB is more than the %llu MiB this host has",
                    (unsigned long long)(size / MIB), (unsigned long long)(host / MIB));
    if (limit && size > limit)
        log_warn("-m: %llu MiB, but this container or session may use %llu MiB: a guest that uses "
                 "more is killed by the host",
                 (unsigned long long)(size / MIB), (unsigned long long)(limit / MIB));
    if (size % PAGE_SIZE)
        return fail(pc, "-m: %llu bytes is no multiple of 4 KiB", (unsigned long long)size);
    if (high && LAYOUT_HIGH_RAM + high > 1ull << bits)
        return fail(pc, "-m: %llu MiB does not fit the CPU's %u address bits",
                    (unsigned long long)(size / MIB), bits);
    r = host_ram_alloc(&pc->ram, size);
    if (r)
        return fail(pc, "cannot get %llu MiB of memory for the guest: %s",
                    (unsigned long long)(size / MIB), strerror(-r));
    r = add_ram(pc, 0, LAYOUT_VGA, 0);
    if (!r)
        r = add_ram(pc, LAYOUT_ROMS, low - LAYOUT_ROMS, LAYOUT_ROMS);
    if (!r && high)
        r = add_ram(pc, LAYOUT_HIGH_RAM, high, low);
    if (r)
        return r;
    if (pc->ends.saved)
        r = pc_restore_memory(pc);
    if (r)
        return r;
    guest_mem_track(&pc->vm.mem);
    r = pc->vm.engine->memory_changed ? pc->vm.engine->memory_changed(&pc->vm) : 0;
    return r ? fail(pc, "engine %s: memory: %s", pc->vm.engine->name, strerror(-r)) : 0;
}

/* Where the kernel comes from, when it is the disk. */
static int read_boot_disk(struct pc *pc)
{
    const struct config *cfg = pc->cfg;

    if (cfg->kernel || pc->ends.saved)
        return 0;
    if (cfg->initrd)
        return fail(pc, "-i: an initrd without a kernel; give that with -k");
    return diskboot_read(&pc->diskboot, cfg->disk.item[0], cfg->append, cfg->memory,
                         strcmp(cfg->sandbox, "off") != 0, pc->err, pc->err_size);
}

/* A kernel that is told nothing says nothing, and whoever starts it sees a black screen. */
static const char *linux_default(const struct config *cfg)
{
    return cfg->virtio_console && !strcmp(cfg->virtio_console, "stdio") ? "console=hvc0"
                                                                        : "console=ttyS0";
}

/* The kernel and what it is told, in memory and in *s. */
static int load(struct pc *pc, struct x86_vcpu_state *s)
{
    const struct config *cfg = pc->cfg;
    struct diskboot *d = &pc->diskboot;
    struct e820_map map;
    struct boot b = {.mem = &pc->vm.mem,
                     .ram = cfg->memory,
                     .map = &map,
                     .cmdline = cfg->append,
                     .linux_default = linux_default(cfg),
                     .initrd = cfg->initrd,
                     .kernel_name = cfg->kernel,
                     .s = s,
                     .err = pc->err,
                     .err_size = pc->err_size};
    int r;

    e820_build(&map, cfg->memory);
    b.rsdp = acpi_build((u8 *)pc->ram.ptr + LAYOUT_BIOS, LAYOUT_ACPI_SIZE, LAYOUT_BIOS,
                        (unsigned)cfg->cpus);
    if (!b.rsdp)
        return fail(pc, "no room for the ACPI tables");
    legacy_bios(pc->ram.ptr);
    if (legacy_mp_table((u8 *)pc->ram.ptr + LAYOUT_MP, LAYOUT_MP_SIZE, LAYOUT_MP, &pc->vm.cpu_model,
                        (unsigned)cfg->cpus))
        return fail(pc, "no room for the MP tables");
    if (cfg->kernel) {
        r = pc_command_boot(pc, &b);
        return r ? r : load_kernel(&b, cfg->kernel);
    }
    log_debug("booting %s: %s", d->name, d->cmdline);
    b.cmdline = d->cmdline;
    b.kernel_name = d->name;
    b.initrd = d->initrd > 0 ? "of the disk" : NULL;
    b.initrd_fd = diskboot_take(&d->initrd);
    return load_kernel_fd(&b, d->name, diskboot_take(&d->kernel));
}

/* All vCPUs are created in the state of RESET at one instant, so that their TSCs agree; the first
 * then gets the loader's. */
static int create_vcpus(struct pc *pc, struct x86_vcpu_state *s)
{
    struct vm *vm = &pc->vm;
    struct x86_vcpu_state ap = *s;
    int r = 0;

    ap.activity = X86_WAIT_SIPI;
    for (unsigned i = 0; i < pc->cfg->cpus && !r; i++) {
        r = vm_add_vcpu(vm, &pc->vcpu[i]);
        if (!r && i)
            r = vm->engine->set_state(&pc->vcpu[i], &ap);
    }
    return r ? fail(pc, "engine %s: cannot create a virtual CPU: %s", vm->engine->name,
                    strerror(-r))
             : 0;
}

static int set_start_state(struct pc *pc)
{
    int r = pc->vm.engine->set_state(&pc->vcpu[0], &pc->start);

    return r ? fail(pc, "engine %s: the start state: %s", pc->vm.engine->name, strerror(-r)) : 0;
}

/* Whoever waits for the machine hears that it runs, now that nothing of the user's can be wrong any
 * more. */
static void tell_ready(struct pc *pc)
{
    console_ready(pc->console);
    if (pc->hvc)
        console_ready(pc->hvc);
}

static int build(struct pc *pc)
{
    struct x86_vcpu_state *s = &pc->start;
    /* Helper processes are forked while there is little to copy, and no thread. */
    int r = pc_restore_check(pc);

    if (!r)
        r = pc_plug_restore_list(pc);
    if (!r)
        r = read_boot_disk(pc);
    if (!r)
        r = pc_watch_sockets(pc);
    if (!r)
        r = pc_open_shares(pc);
    if (!r)
        r = pc_open_nets(pc);
    if (!r)
        r = pc_open_vsock(pc);
    if (!r)
        r = pc_open_seed(pc);
    if (!r)
        r = pc_open_disks(pc); /* not for the eyes of the processes made above */
    if (!r)
        r = create_engine(pc);
    if (!r)
        r = create_memory(pc);
    if (r)
        return r;
    x86_state_reset(s, pc->vm.cpu_model.signature, pc->vm.read_tsc());
    x86_mtrr_firmware(s); /* every boot path so far starts a kernel without firmware */
    r = create_vcpus(pc, s);
    if (!r && !pc->ends.saved)
        r = load(pc, s);
    if (!r)
        r = pc_create_devices(pc);
    if (r)
        return r;
    r = pc->ends.saved ? pc_restore_state(pc) : set_start_state(pc);
    if (r)
        return r;
    if (pc->cfg->gdb) {
        pc->gdb = gdb_server_open(&pc->vm, pc->cfg->gdb, dump_state, pc->err, pc->err_size);
        if (!pc->gdb)
            return -EINVAL;
    }
    r = pc_open_control(pc);
    if (!r)
        r = pc_start_outputs(pc); /* last: what is overwritten for nothing is lost */
    if (r)
        return r;
    if (pc->gdb)
        gdb_server_announce(pc->gdb);
    tell_ready(pc);
    return 0;
}

struct pc *pc_create(const struct config *cfg, const struct pc_ends *ends, char *err,
                     size_t err_size)
{
    struct pc *pc = aligned_alloc(64, align_up(sizeof(*pc), 64));

    if (!pc) {
        snprintf(err, err_size, "out of memory");
        return NULL;
    }
    memset(pc, 0, sizeof(*pc));
    pc->cfg = cfg;
    pc->ends = *ends;
    pc->cwd = getcwd(NULL, 0);
    if (!pc->cwd)
        pc->cwd = strdup("/"); /* it was removed: nothing relative is to be had */
    pc->started = host_monotonic_ns();
    pc->err = err;
    pc->err_size = err_size;
    if (build(pc)) {
        pc_destroy(pc);
        return NULL;
    }
    pc->err = NULL;
    /* Not earlier: whoever made a mistake gets one line, about it. */
    if (!strcmp(cfg->engine, "auto"))
        log_info("%s", pc->chosen);
    return pc;
}

static void print_counter(void *opaque, const char *name, u64 value)
{
    fprintf(opaque, "%-20s %llu\n", name, (unsigned long long)value);
}

/* Registers and counters as text, while there still is a machine to ask. NULL: none. */
static char *final_report(struct pc *pc, bool crashed)
{
    struct vm *vm = &pc->vm;
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    if (!out)
        return NULL;
    if (crashed || pc->cfg->dump_state)
        for (unsigned i = 0; i < vm->nvcpus; i++)
            if (!vm->engine->get_state(vm->vcpu[i], &pc->start))
                dump_state(out, i, &pc->start, &vm->mem);
    if (pc->cfg->stats && vm->engine->stats)
        vm->engine->stats(vm, print_counter, out);
    fclose(out);
    return text;
}

/* Ends the machine and gives the terminal back. Devices first: they may hold back output. */
static void tear_down(struct pc *pc)
{
    gdb_server_close(pc->gdb);
    pc->gdb = NULL;
    control_server_close(pc->control);
    pc->control = NULL;
    if (pc->vm.engine)
        vm_destroy(&pc->vm);
    pc->vm.engine = NULL;
    pc_close_shares(pc);
    if (pc->console)
        pc->console->close(pc->console);
    pc->console = NULL;
    if (pc->command)
        pc->command->close(pc->command);
    pc->command = NULL;
    pc_close_nets(pc);
    pc_close_vsock(pc);
    pc_close_disks(pc);
    pc_plug_close(pc);
    pc_close_virtio(pc);
    pc_close_seed(pc);
    host_listen_clean();
}

static int exit_status(const struct vm *vm)
{
    switch ((enum vm_stop_reason)vm->stop_reason) {
    case VM_POWEROFF:
        return PC_EXIT_OK;
    case VM_RESET:
    case VM_TEST_EXIT:
    case VM_QUIT:
        return vm->exit_code;
    case VM_CRASH:
        return vm->exit_code ? vm->exit_code : PC_EXIT_FAILURE;
    case VM_RUNNING:
        break;
    }
    return PC_EXIT_FAILURE;
}

/* Says why the machine stopped where that is not obvious. */
static void report_stop(const struct vm *vm)
{
    switch ((enum vm_stop_reason)vm->stop_reason) {
    case VM_RESET:
        if (vm->exit_code == PC_EXIT_TRIPLE_FAULT)
            log_error("the guest crashed: %s", vm->stop_text);
        else
            log_info("the guest reset the machine%s%s", vm->stop_text[0] ? ": " : "",
                     vm->stop_text);
        break;
    case VM_TEST_EXIT:
    case VM_QUIT:
        if (vm->stop_text[0])
            log_info("%s", vm->stop_text);
        break;
    case VM_CRASH:
        log_error("%s", vm->stop_text[0] ? vm->stop_text : "the guest cannot go on");
        break;
    case VM_POWEROFF:
    case VM_RUNNING:
        break;
    }
}

int pc_run(struct pc *pc)
{
    int status, r = vm_start(&pc->vm);
    enum vm_stop_reason why;
    char *text;

    if (!r)
        r = pc_restore_verify(pc);
    /* All threads exist and everything is open, but no guest code has run. */
    if (!r && pc_confine(pc->cfg, pc->vm.engine->name))
        vm_stop(&pc->vm, VM_CRASH, PC_EXIT_FAILURE, "not run unconfined; --sandbox off does that");
    if (!r) {
        pc_restore_resume(pc);
        r = vm_run(&pc->vm);
    }
    status = r ? PC_EXIT_FAILURE : exit_status(&pc->vm);
    why = (enum vm_stop_reason)pc->vm.stop_reason;
    status = pc_command_status(pc, status);
    text = final_report(pc, why == VM_CRASH || (why == VM_RESET && pc->vm.exit_code));

    gdb_server_vm_ended(pc->gdb, status);
    tear_down(pc);
    if (r)
        log_error("the event loop failed: %s", strerror(-r));
    report_stop(&pc->vm);
    pc_command_report(pc);
    if (text)
        fputs(text, stderr);
    free(text);
    return status;
}

void pc_quit(struct pc *pc, int status, const char *why)
{
    vm_stop(&pc->vm, VM_QUIT, status, why);
}

void pc_destroy(struct pc *pc)
{
    tear_down(pc);
    pc_saved_close(pc->ends.saved);
    host_ram_free(&pc->ram);
    free(pc->cwd);
    diskboot_close(&pc->diskboot);
    cpio_free(&pc->extra_initrd);
    free(pc->cmdline);
    free(pc->last_words);
    free(pc);
}
