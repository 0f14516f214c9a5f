/* SPDX-License-Identifier: Apache-2.0 */
/* Writes what the fuzzers start from to DIR/loaders and DIR/options. */
#include <stdio.h>
#include <sys/stat.h>

#include "board/images.h"
#include "config/config.h"

static u8 image[TEST_IMAGE_MAX];

static int put(const char *dir, const char *sub, unsigned n, const void *data, u64 size)
{
    char path[512];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, sub);
    mkdir(path, 0777);
    snprintf(path, sizeof(path), "%s/%s/seed%u", dir, sub, n);
    f = fopen(path, "wbe");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f)) {
        perror(path);
        return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    int bad = 0;

    if (argc != 2)
        return 2;
    mkdir(argv[1], 0777);
    bad |= put(argv[1], "loaders", 0, image, make_bzimage(image));
    bad |= put(argv[1], "loaders", 1, image, make_pvh_elf(image, false));
    bad |= put(argv[1], "loaders", 2, image, make_pvh_elf(image, true));
    bad |= put(argv[1], "loaders", 3, image, make_multiboot_elf(image));
    bad |= put(argv[1], "loaders", 4, image, make_multiboot_flat(image));
    for (size_t i = 0; i < config_n_options; i++) {
        int n = snprintf((char *)image, sizeof(image), "--%s", config_options[i].name) + 1;

        n += snprintf((char *)image + n, sizeof(image) - (size_t)n, "%s",
                      config_options[i].value ? config_options[i].value : "x") +
             1;
        bad |= put(argv[1], "options", (unsigned)i, image, (u64)n);
    }
    return bad;
}
