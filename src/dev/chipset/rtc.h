/* SPDX-License-Identifier: Apache-2.0 */
/* MC146818 real-time clock with 128 bytes of CMOS memory, ports 70H and 71H. */
#ifndef TRIVISOR_DEV_CHIPSET_RTC_H
#define TRIVISOR_DEV_CHIPSET_RTC_H

#include "core/vm.h"

/* CMOS register of the century, for the FADT. */
#define RTC_CENTURY 0x32

struct rtc_config {
    struct irq_line irq; /* ISA interrupt 8 */
    u64 ram_below_4g;    /* bytes, shown in the memory size registers */
    u64 ram_above_4g;
    bool fixed_time; /* start at start_ns instead of the host's clock */
    u64 start_ns;    /* since the epoch, UTC */
};

/* NULL: no memory, or the ports are taken. The device belongs to the VM. */
struct device *rtc_create(struct vm *vm, const struct rtc_config *cfg);

#endif
