/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a kernel image: refused or loaded, never more. */
#include <stdlib.h>

#include "board/images.h"
#include "board/load.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct test_machine m;

    /* What earlier inputs left in memory is of no matter to a loader. */
    if (!m.ram)
        machine_init(&m, TEST_RAM);
    m.b.n_used = 0;
    x86_state_reset(&m.s, 0, 0);
    m.err[0] = 0;
    if (load_kernel_image(&m.b, data, size) && !m.err[0])
        abort(); /* refused, and not said why */
    return 0;
}
