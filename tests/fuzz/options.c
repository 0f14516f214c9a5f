/* SPDX-License-Identifier: Apache-2.0 */
/* Any words as options. */
#include <stdlib.h>
#include <string.h>

#include "config/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), *argv[64], err[512];
    struct config c;
    int argc = 0;

    memcpy(text, data, size);
    text[size] = 0;
    for (size_t at = 0; at < size && argc < 64; at += strlen(text + at) + 1)
        argv[argc++] = text + at;
    config_defaults(&c);
    err[0] = 0;
    if (config_parse(&c, argc, argv, err, sizeof(err)) && !err[0])
        abort(); /* refused, and not said why */
    free(text);
    return 0;
}
