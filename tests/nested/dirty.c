/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log of dirty pages, on a KVM that is there: run by test_nested.py. One vCPU in real mode
 * writes two pages and a port; the process, which is confined by then, writes another.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "board/host_cpu.h"
#include "board/pc_priv.h"
#include "core/vm.h"
#include "engine/kvm/kvm.h"

#define RAM 0x100000u
#define CODE 0x1000u
#define PAGES (RAM / PAGE_SIZE)

static struct machine {
    struct x86_vcpu_state s; /* first: it is aligned */
    struct vm vm;
    struct vcpu v;
    struct host_ram ram;
    bool ended;
} m __attribute__((aligned(64)));

/* MOV byte [5000H], 1; MOV byte [9000H], 1; OUT 80H, AL; HLT */
static const u8 code[] = {0xc6, 0x06, 0x00, 0x50, 0x01, 0xc6, 0x06,
                          0x00, 0x90, 0x01, 0xe6, 0x80, 0xf4};

static void end_write(void *dev, u64 off, unsigned size, u64 val)
{
    (void)dev;
    (void)off;
    (void)size;
    (void)val;
    m.ended = true;
    vcpu_post(&m.v, VCPU_EV_STOP);
}

static u64 end_read(void *dev, u64 off, unsigned size)
{
    (void)dev;
    (void)off;
    (void)size;
    return 0;
}

static const struct bus_ops end_ops = {
    .read = end_read, .write = end_write, .min_size = 1, .max_size = 1};

static void must(const char *what, int err)
{
    if (!err)
        return;
    printf("dirty: %s: %s\n", what, strerror(-err));
    exit(1);
}

static void run(void)
{
    struct engine_exit exit;

    x86_state_reset(&m.s, m.vm.cpu_model.signature, m.vm.read_tsc());
    m.s.seg[X86_CS].sel = 0;
    m.s.seg[X86_CS].base = 0;
    m.s.rip = CODE;
    m.ended = false;
    m.v.events = 0;
    must("set_state", m.vm.engine->set_state(&m.v, &m.s));
    do
        m.vm.engine->run(&m.v, &exit);
    while (exit.kind == ENGINE_EXIT_KICKED && !m.ended);
    must(exit.text, m.ended ? 0 : -1);
}

static void show(const char *when)
{
    u64 map[PAGES / 64] = {0};

    must("dirty_collect", m.vm.engine->dirty_collect(&m.vm, 0, map));
    printf("%s:", when);
    for (unsigned i = 0; i < PAGES; i++)
        if (map[i / 64] >> (i % 64) & 1)
            printf(" %x", i);
    printf("\n");
}

int main(void)
{
    const struct engine_options opt = {0};
    const struct config cfg = {.sandbox = "on"};

    vm_init(&m.vm, &kvm_engine_ops);
    host_cpu_model(&m.vm.cpu_model, 1, false);
    must("vm_create", kvm_engine_ops.vm_create(&m.vm, &opt));
    must("RAM", host_ram_alloc(&m.ram, RAM));
    must("slot", guest_mem_add(&m.vm.mem, gpa(0), RAM, m.ram.ptr, false));
    must("memory_changed", kvm_engine_ops.memory_changed(&m.vm));
    must("vCPU", vm_add_vcpu(&m.vm, &m.v));
    must("port", bus_add(&m.vm.pio, 0x80, 1, &end_ops, &m, "end"));
    must("code", vm_dma_write(&m.vm, gpa(CODE), code, sizeof(code)));
    must("dirty_log", kvm_engine_ops.dirty_log(&m.vm, true));
    run();
    must("dirty_log", kvm_engine_ops.dirty_log(&m.vm, false));
    must("a log that ended", kvm_engine_ops.dirty_collect(&m.vm, 0, NULL) ? 0 : -1);
    run();
    must("dirty_log", kvm_engine_ops.dirty_log(&m.vm, true));
    host_loop_timer(UINT64_MAX, NULL, NULL); /* the event loop is made when it is first used */
    must("pc_confine", pc_confine(&cfg, "kvm"));
    show("begin");
    run();
    show("guest");
    show("again");
    must("write", vm_dma_write(&m.vm, gpa(0x20ffe), code, 4));
    run();
    show("both");
    vm_destroy(&m.vm);
    host_ram_free(&m.ram);
    return 0;
}
