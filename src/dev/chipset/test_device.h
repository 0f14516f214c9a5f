/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What QEMU calls pc-testdev: things for suites that test an emulator from inside the guest
 * (kvm-unit-tests). No guest has a use for it otherwise, and it is there only when it is asked for.
 *   port E0H, 4 bytes      a register, for port accesses of every size
 *   port E4H, 4 bytes      a write of a guest-physical address has the page behind it translated
 *                          anew; here nothing would be different then, so nothing is done
 *   ports 2000H to 2017H   a write of n to the port of a GSI (of an ISA interrupt below 16)
 *                          asserts it, if n is not 0, or releases it
 *   FF000000H, 64 KiB      memory on the MMIO bus, for accesses of every size
 */
#ifndef TRIVISOR_DEV_CHIPSET_TEST_DEVICE_H
#define TRIVISOR_DEV_CHIPSET_TEST_DEVICE_H

#include "core/vm.h"

#define TEST_DEVICE_PORT 0xe0
#define TEST_DEVICE_FLUSH_PORT 0xe4
#define TEST_DEVICE_IRQ_PORT 0x2000
#define TEST_DEVICE_IRQS 24
#define TEST_DEVICE_MEM 0xff000000ull
#define TEST_DEVICE_MEM_SIZE 0x10000

struct test_device_config {
    struct irq_line irq[TEST_DEVICE_IRQS];
};

/* NULL: no memory, or addresses are taken. The device belongs to the VM. */
struct device *test_device_create(struct vm *vm, const struct test_device_config *cfg);

#endif
