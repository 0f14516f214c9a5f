/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instructions that KVM leaves to the interpreter, with KVM played by this file: it keeps the
 * registers it is given. The guest is in real mode, its code at 0, with RAM and, from 64 KiB on,
 * ROM.
 */
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>

#include "dev/chipset/lapic.h"
#include "engine/kvm/kvm_priv.h"
#include "test.h"
#include "x86/msr.h"

#define SIZE 0x10000u
#define ROM 0x10000u

static struct vm vm;
static struct vcpu vcpu;
static struct kvm_cpu cpu;
static struct kvm_machine machine;
static struct kvm_run run;
static u8 ram[SIZE] __attribute__((aligned(PAGE_SIZE))),
    rom[SIZE] __attribute__((aligned(PAGE_SIZE)));
static u64 dirty[(SIZE / PAGE_SIZE + 63) / 64];
static struct kvm_regs regs;
static struct kvm_sregs2 sregs;
static struct kvm_debugregs debugregs;

int __wrap_ioctl(int fd, unsigned long request, ...);

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    void *arg;

    (void)fd;
    va_start(ap, request);
    arg = va_arg(ap, void *);
    va_end(ap);
    switch (request) {
    case KVM_GET_REGS:
        memcpy(arg, &regs, sizeof(regs));
        return 0;
    case KVM_SET_REGS:
        memcpy(&regs, arg, sizeof(regs));
        return 0;
    case KVM_GET_SREGS2:
        memcpy(arg, &sregs, sizeof(sregs));
        return 0;
    case KVM_SET_SREGS2:
        memcpy(&sregs, arg, sizeof(sregs));
        return 0;
    case KVM_GET_DEBUGREGS:
        memcpy(arg, &debugregs, sizeof(debugregs));
        return 0;
    case KVM_GET_VCPU_EVENTS:
        memset(arg, 0, sizeof(struct kvm_vcpu_events));
        return 0;
    case KVM_GET_MP_STATE:
        memset(arg, 0, sizeof(struct kvm_mp_state)); /* runnable */
        return 0;
    case KVM_GET_XCRS:
        memset(arg, 0, sizeof(struct kvm_xcrs)); /* none */
        return 0;
    case KVM_GET_XSAVE:
    case KVM_GET_MSRS:
    case KVM_SET_XSAVE:
    case KVM_SET_XCRS:
    case KVM_SET_MSRS:
    case KVM_SET_DEBUGREGS:
    case KVM_SET_VCPU_EVENTS:
    case KVM_SET_MP_STATE:
    case KVM_SET_DEVICE_ATTR:
        return 0;
    default:
        errno = ENOTTY;
        return -1;
    }
}

static int vcpu_create(struct vcpu *v)
{
    v->engine_vcpu = &cpu;
    return 0;
}

static const struct engine_ops ops = {.name = "kvm", .vcpu_create = vcpu_create};

static int build(void **state)
{
    (void)state;
    vm_init(&vm, &ops);
    vm.engine_vm = &machine;
    vm.cpu_model.xcr0_valid = 1;
    vm.cpu_model.phys_bits = 40;
    if (guest_mem_add(&vm.mem, gpa(0), SIZE, ram, false) ||
        guest_mem_add(&vm.mem, gpa(ROM), SIZE, rom, true))
        return -1;
    machine.vm = &vm;
    machine.fd = -1;
    machine.dirty[0] = dirty;
    cpu.v = &vcpu;
    cpu.m = &machine;
    cpu.run = &run;
    return vm_add_vcpu(&vm, &vcpu) || kvm_interp_create(&cpu) ? -1 : 0;
}

static struct kvm_segment real_mode(u16 selector)
{
    return (struct kvm_segment){.base = (u64)selector << 4,
                                .limit = 0xffff,
                                .selector = selector,
                                .type = 3,
                                .present = 1,
                                .s = 1};
}

/* With DS at the ROM and ES at 0. */
static void start(const u8 *code, size_t n)
{
    memset(ram, 0, sizeof(ram));
    memcpy(ram, code, n);
    memset(dirty, 0, sizeof(dirty));
    regs = (struct kvm_regs){.rflags = 2, .rbx = 0x20, .rdi = 0x3ffe, .rsp = 0x8000};
    sregs = (struct kvm_sregs2){.cr0 = CR0_ET};
    sregs.cs = sregs.es = sregs.ss = sregs.fs = sregs.gs = real_mode(0);
    sregs.ds = real_mode(ROM >> 4);
    debugregs = (struct kvm_debugregs){.dr6 = DR6_INIT, .dr7 = DR7_INIT};
}

/* The one instruction that is there. */
static void step(size_t n)
{
    struct engine_exit exit;

    if (!kvm_interp_one(&cpu, &exit))
        fail_msg("%s", exit.text);
    assert_int_equal(regs.rip, n);
}

static void interpret(const u8 *code, size_t n)
{
    start(code, n);
    step(n);
}

static void finish__reads_rom(void **state)
{
    static const u8 load[] = {0x8b, 0x07};      /* MOV AX, [BX] */
    static const u8 add[] = {0x83, 0x07, 0x01}; /* ADD word [BX], 1: what it writes is lost */
    static const u8 fetched[] = {0x8b, 0x0f};   /* MOV CX, [BX] */

    (void)state;
    memcpy(rom + 0x20, "\x34\x12", 2);
    interpret(load, sizeof(load));
    assert_int_equal(regs.rax, 0x1234);
    memcpy(rom + 0x20, "\xff\xff", 2);
    interpret(add, sizeof(add));
    assert_memory_equal(rom + 0x20, "\xff\xff", 2);
    assert_int_equal(regs.rflags & (RFLAGS_CF | RFLAGS_ZF), RFLAGS_CF | RFLAGS_ZF);
    interpret(fetched, sizeof(fetched));
    assert_int_equal(regs.rcx, 0xffff);
}

static void finish__logs_what_it_writes(void **state)
{
    static const u8 store[] = {0x26, 0x66, 0x89, 0x05}; /* MOV ES:[DI], EAX: across two pages */

    (void)state;
    interpret(store, sizeof(store));
    assert_int_equal(dirty[0], 0x18);
}

/* A and D of the page tables, which are written on the way. */
static void finish__logs_the_walk(void **state)
{
    static const u8 store[] = {0x26, 0x89, 0x05}; /* MOV ES:[DI], AX */
    const u32 directory = 0x5007;

    (void)state;
    start(store, sizeof(store));
    memcpy(ram + 0x4000, &directory, 4);
    for (u32 i = 0; i < 16; i++) {
        const u32 page = i * PAGE_SIZE | 7;

        memcpy(ram + 0x5000 + 4 * i, &page, 4);
    }
    sregs.cr0 |= CR0_PE | CR0_PG;
    sregs.cr3 = 0x4000;
    sregs.cs.type = 0xb;
    step(sizeof(store));
    assert_int_equal(dirty[0], 0x38);
    assert_int_equal(ram[0x5000 + 4 * 3], 0x67);
}

/* KVM may not know the bytes: a fetch from where there is no memory. */
static void finish__says_what_it_cannot(void **state)
{
    struct engine_exit exit;

    (void)state;
    start((const u8 *)"", 0);
    sregs.apic_base = KVM_APIC_BASE_EN | 0x30000;
    sregs.cs.base = 0x30000;
    assert_false(kvm_interp_one(&cpu, &exit));
    assert_string_equal(exit.text, "engine kvm: KVM cannot emulate the instruction at rip 0: an "
                                   "access to the local APIC");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finish__reads_rom),
        cmocka_unit_test(finish__logs_what_it_writes),
        cmocka_unit_test(finish__logs_the_walk),
        cmocka_unit_test(finish__says_what_it_cannot),
    };

    return cmocka_run_group_tests_name("kvm-finish", tests, build, NULL);
}
