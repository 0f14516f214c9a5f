// SPDX-License-Identifier: Apache-2.0
/* ACPI power-off: writes S5 to PM1a_CNT with the value the DSDT's \_S5 gives; the machine must end
 * by itself. run-guest expects the exit status of a plain power-off (0). */
#include "x64.h"

void guest_main(void)
{
    const u8 *f = acpi_find("FACP"), *dsdt;
    u32 len;

    print("poweroff: ");
    if (!f)
        goto bad;
    dsdt = (const u8 *)(uptr) * (const u32 *)(f + 40);
    if (!dsdt)
        dsdt = (const u8 *)(uptr) * (const u64 *)(f + 140);
    len = *(const u32 *)(dsdt + 4);
    for (u32 i = 36; i + 8 < len; i++) {
        const u8 *p = dsdt + i;
        if (memcmp(p, "_S5_", 4) != 0 || p[4] != 0x12)
            continue;
        /* PackageOp, PkgLength (one byte for so small a package), NumElements, elements */
        p += 7 + (p[5] >> 6);
        {
            u8 typ = p[0] == 0x0a ? p[1] : p[0];
            u16 port = (u16) * (const u32 *)(f + 64);
            print("S5 type %u port %x\n", typ, port);
            print("guest: 1 passed, 0 failed, 0 skipped\n");
            outw(port, (u16)(typ << 10 | 1 << 13));
            delay(2000 * TSC_MS);
            print("poweroff: still here\n");
            guest_exit(2);
        }
    }
bad:
    print("no FADT or no _S5\n");
    guest_exit(3);
}
