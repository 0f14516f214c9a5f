/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "board/boot.h"
#include "board/host_cpu.h"
#include "board/measure.h"
#include "core/host.h"
#include "core/vm.h"

#define RAM (2ull << 20)
#define CODE 0x100000ull
#define DATA 0x110000ull
#define STACK 0x120000ull
#define INSNS_A_LOOP 12
#define TRIES 3

/* The loop: rdi times, memory at rsi. A function natively; as a guest it ends with END instead of
 * RET. */
__asm__(".pushsection .rodata\n"
        "measure_code:\n"
        "1: movq 8(%rsi), %rax\n"
        "   addq %rdi, %rax\n"
        "   movq %rax, 8(%rsi)\n"
        "   testb $1, %al\n"
        "   jz 2f\n"
        "   incq %rdx\n"
        "2: call 3f\n"
        "   decq %rdi\n"
        "   jnz 1b\n"
        "   ret\n"
        "   nop; nop\n"
        "3: leaq (%rax,%rax,2), %rax\n"
        "   xorq %rax, %rdx\n"
        "   ret\n"
        "measure_code_end:\n"
        ".popsection\n");
extern const u8 measure_code[], measure_code_end[];
/* Offset of the RET that ends the loop, from the end: RET, XOR (3), LEA (4), NOPs, RET. */
#define RET_FROM_END 11
#define END_PORT 0x80
/* OUT to END_PORT; HLT. A halt alone does not end run where halts are the engine's own. */
static const u8 end[] = {0xe6, END_PORT, 0xf4};

struct measure {
    struct x86_vcpu_state s; /* first: it is aligned */
    struct vm vm;
    struct vcpu v;
    struct host_ram ram;
    bool ended;
};

static u64 mips(u64 rounds, u64 ns)
{
    return rounds * INSNS_A_LOOP * 1000 / (ns ? ns : 1);
}

static int measure_native(u64 rounds, u64 *best)
{
    size_t n = (size_t)(measure_code_end - measure_code);
    u8 *page = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    u64 data[2] = {0};

    if (page == MAP_FAILED)
        return -errno;
    memcpy(page, measure_code, n);
    if (mprotect(page, PAGE_SIZE, PROT_READ | PROT_EXEC)) {
        munmap(page, PAGE_SIZE);
        return -errno;
    }
    *best = 0;
    for (unsigned i = 0; i < TRIES; i++) {
        u64 start = host_monotonic_ns(), got;

        ((void (*)(u64, void *))(uintptr_t)page)(rounds, data);
        got = mips(rounds, host_monotonic_ns() - start);
        if (got > *best)
            *best = got;
    }
    munmap(page, PAGE_SIZE);
    return 0;
}

/* The guest in memory, and the state it starts in. */
static int prepare(struct vm *vm, u64 rounds, struct x86_vcpu_state *s)
{
    size_t n = (size_t)(measure_code_end - measure_code);
    struct e820_map map;
    char err[128];
    struct boot b = {.mem = &vm->mem,
                     .ram = RAM,
                     .map = &map,
                     .kernel_name = "measure",
                     .s = s,
                     .err = err,
                     .err_size = sizeof(err)};
    int r;

    e820_build(&map, RAM);
    x86_state_reset(s, vm->cpu_model.signature, vm->read_tsc());
    r = boot_enter_flat64(&b, CODE);
    if (!r)
        r = boot_write(&b, CODE, measure_code, n);
    if (!r)
        r = boot_write(&b, CODE + n - RET_FROM_END, end, sizeof(end));
    s->gpr[X86_RDI] = rounds;
    s->gpr[X86_RSI] = DATA;
    s->gpr[X86_RSP] = STACK;
    return r;
}

static void end_write(void *dev, u64 off, unsigned size, u64 val)
{
    struct measure *m = dev;

    (void)off;
    (void)size;
    (void)val;
    m->ended = true;
    vcpu_post(&m->v, VCPU_EV_STOP);
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

static int run(struct measure *m, u64 rounds, u64 *best)
{
    struct engine_exit exit;

    *best = 0;
    for (unsigned i = 0; i < TRIES; i++) {
        u64 start = host_monotonic_ns(), got;
        int r = m->vm.engine->set_state(&m->v, &m->s);

        if (r)
            return r;
        m->ended = false;
        __atomic_store_n(&m->v.events, 0, __ATOMIC_SEQ_CST);
        do
            m->vm.engine->run(&m->v, &exit);
        while (exit.kind == ENGINE_EXIT_KICKED && !m->ended);
        got = mips(rounds, host_monotonic_ns() - start);
        if (!m->ended)
            return -EIO;
        if (got > *best)
            *best = got;
    }
    return 0;
}

int engine_measure(const struct engine_ops *ops, u64 rounds, struct engine_speed *out)
{
    struct measure *m = aligned_alloc(64, align_up(sizeof(*m), 64));
    struct engine_options opt = {0};
    int r;

    if (!m)
        return -ENOMEM;
    memset(m, 0, sizeof(*m));
    r = measure_native(rounds, &out->native_mips);
    if (r)
        goto out;
    vm_init(&m->vm, ops);
    host_cpu_model(&m->vm.cpu_model, 1, false);
    r = ops->vm_create(&m->vm, &opt);
    if (!r)
        r = host_ram_alloc(&m->ram, RAM);
    if (!r)
        r = guest_mem_add(&m->vm.mem, gpa(0), RAM, m->ram.ptr, false);
    if (!r && ops->memory_changed)
        r = ops->memory_changed(&m->vm);
    if (!r)
        r = vm_add_vcpu(&m->vm, &m->v);
    if (!r)
        r = prepare(&m->vm, rounds, &m->s);
    if (!r)
        r = bus_add(&m->vm.pio, END_PORT, 1, &end_ops, m, "end");
    if (!r)
        r = run(m, rounds, &out->engine_mips);
    vm_destroy(&m->vm);
    host_ram_free(&m->ram);
out:
    free(m);
    return r;
}
