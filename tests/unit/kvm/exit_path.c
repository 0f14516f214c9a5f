/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way of a port write from KVM to a device and back, with KVM_RUN played by this file: it takes
 * one request of KVM and no other system call, and no memory.
 *
 * How many instructions it takes: valgrind --tool=callgrind --toggle-collect=kvm_engine_run
 * unit-kvm-exit-path N, divided by N (docs/design.md).
 */
#include <errno.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dev/chipset/lapic.h"
#include "engine/kvm/kvm_priv.h"
#include "test.h"

#define PORT 0x80

static struct vm vm;
static struct vcpu vcpu;
static struct kvm_cpu cpu;
static struct kvm_machine machine;
static union {
    struct kvm_run run;
    u8 page[2 * PAGE_SIZE];
} shared;
static unsigned long left, written, requests, allocations;

int __wrap_ioctl(int fd, unsigned long request, ...);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);

void *__wrap_malloc(size_t n)
{
    allocations++;
    return __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    allocations++;
    return __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    allocations++;
    return __real_realloc(p, n);
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    (void)fd;
    requests++;
    if (request != KVM_RUN || !left || shared.run.immediate_exit) {
        errno = request == KVM_RUN ? EINTR : ENOTTY;
        if (!left)
            vcpu.events |= VCPU_EV_STOP;
        return -1;
    }
    left--;
    shared.run.exit_reason = KVM_EXIT_IO;
    shared.run.io.direction = KVM_EXIT_IO_OUT;
    shared.run.io.size = 1;
    shared.run.io.port = PORT;
    shared.run.io.count = 1;
    shared.run.io.data_offset = PAGE_SIZE;
    return 0;
}

static void port_write(void *dev, u64 off, unsigned size, u64 val)
{
    (void)dev;
    (void)off;
    (void)size;
    (void)val;
    written++;
}

static const struct bus_ops port_ops = {.write = port_write};

static int vcpu_create(struct vcpu *v)
{
    v->engine_vcpu = &cpu;
    return 0;
}

static const struct engine_ops ops = {.name = "kvm", .vcpu_create = vcpu_create};

static bool build(void)
{
    vm_init(&vm, &ops);
    vm.engine_vm = &machine;
    machine.vm = &vm;
    cpu.v = &vcpu;
    cpu.m = &machine;
    cpu.run = &shared.run;
    cpu.thread = 1;
    if (vm_add_vcpu(&vm, &vcpu) || !lapic_create(&vm))
        return false;
    /* As many regions as a PC has, about. */
    for (unsigned i = 0; i < 24; i++)
        if (bus_add(&vm.pio, PORT - 16 + 4 * i, 4, &port_ops, NULL, "port"))
            return false;
    return true;
}

static bool run(unsigned long n)
{
    struct engine_exit exit;

    left = n;
    written = requests = allocations = 0;
    cpu.incomplete = true; /* nothing to look at before the first */
    kvm_engine_run(&vcpu, &exit);
    return exit.kind == ENGINE_EXIT_KICKED && written == n;
}

static void exit_path__is_short(void **state)
{
    (void)state;
    vcpu.events = 0;
    assert_true(run(1000));
    assert_int_equal(allocations, 0);
    assert_true(requests >= 1000 && requests <= 1002); /* and what ends it */
}

static void exit_path__calls_nobody(void **state)
{
    int status;
    pid_t pid = fork();

    (void)state;
    assert_true(pid >= 0);
    if (!pid) {
        vcpu.events = 0;
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT))
            _exit(77);
        /* Any system call kills. */
        syscall(SYS_exit, run(1000) ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(status, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exit_path__is_short),
        cmocka_unit_test(exit_path__calls_nobody),
    };

    if (!build())
        return 1;
    if (argc > 1)
        return run(strtoul(argv[1], NULL, 10)) ? 0 : 1;
    return cmocka_run_group_tests_name("kvm-exit-path", tests, NULL, NULL);
}
