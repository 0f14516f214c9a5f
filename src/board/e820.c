/* SPDX-License-Identifier: Apache-2.0 */
#include "board/e820.h"
#include "board/layout.h"

u64 e820_low_ram(u64 ram)
{
    return ram < LAYOUT_LOW_RAM_MAX ? ram : LAYOUT_LOW_RAM_MAX;
}

u64 e820_high_ram(u64 ram)
{
    return ram - e820_low_ram(ram);
}

static void add(struct e820_map *m, u64 addr, u64 size, u32 type)
{
    m->entry[m->n++] = (struct e820_entry){addr, size, type};
}

void e820_build(struct e820_map *m, u64 ram)
{
    m->n = 0;
    add(m, 0, LAYOUT_EBDA, E820_RAM);
    add(m, LAYOUT_EBDA, LAYOUT_VGA - LAYOUT_EBDA, E820_RESERVED);
    add(m, LAYOUT_BIOS, LAYOUT_BIOS_SIZE, E820_RESERVED);
    add(m, LAYOUT_1M, e820_low_ram(ram) - LAYOUT_1M, E820_RAM);
    add(m, LAYOUT_ECAM, LAYOUT_ECAM_SIZE, E820_RESERVED);
    if (e820_high_ram(ram))
        add(m, LAYOUT_HIGH_RAM, e820_high_ram(ram), E820_RAM);
}
