/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a disk to boot from: partition tables, file systems, boot loaders' configuration. */
#include <stdlib.h>
#include <string.h>

#include "backend/bootdisk/bootdisk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *data;
    size_t size;
};

static int read_input(void *opaque, void *buf, size_t len, u64 off)
{
    const struct input *in = opaque;

    if (off % 512 || len % 512 || off + len > in->size)
        abort(); /* the promise of bootdisk_source */
    memcpy(buf, in->data + off, len);
    return 0;
}

static int swallow(void *opaque, const void *buf, size_t len)
{
    volatile uint8_t *sum = opaque;

    for (size_t i = 0; i < len; i++)
        *sum ^= ((const uint8_t *)buf)[i];
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t sum;
    static struct bootdisk_answer answer;
    struct input in = {data, size / 512 * 512};
    struct bootdisk_request rq = {.disk = {read_input, &in, in.size},
                                  .kernel = {swallow, &sum, 1 << 16},
                                  .initrd = {swallow, &sum, 1 << 16},
                                  .root_known = size & 1};
    char err[512] = "";

    if (bootdisk_read(&rq, &answer, err, sizeof(err)) && !err[0])
        abort(); /* refused, and not said why */
    return 0;
}
