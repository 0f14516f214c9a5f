/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "board/load.h"
#include "board/load_bzimage.h"
#include "board/load_multiboot.h"

int load_kernel_image(struct boot *b, const u8 *buf, u64 n)
{
    /* The larger two are not for the stack of a library function. */
    struct formats {
        struct bzimage bz;
        struct multiboot_image mb;
        struct elf_image elf;
    } *f = malloc(sizeof(*f));
    const char *why = NULL;
    int r;

    if (!f)
        return boot_fail(b, "out of memory");
    r = bzimage_parse(buf, n, &f->bz, &why);
    if (!r) {
        r = bzimage_load(b, &f->bz, buf);
        goto out;
    }
    if (r == -ENOEXEC) {
        r = multiboot_parse(buf, n, &f->mb, &why);
        if (!r) {
            r = multiboot_load(b, &f->mb, buf);
            goto out;
        }
    }
    if (r == -ENOEXEC) {
        r = elf_parse(buf, n, &f->elf, &why);
        if (!r) {
            r = f->elf.has_pvh ? pvh_load(b, &f->elf, buf)
                               : boot_fail(b,
                                           "%s: an ELF image with neither a PVH entry note nor a "
                                           "Multiboot header cannot be booted",
                                           b->kernel_name);
            goto out;
        }
    }
    if (r == -ENOEXEC)
        boot_fail(b, "%s is no kernel: not a Linux bzImage, a Multiboot image or an ELF image",
                  b->kernel_name);
    else
        boot_fail(b, "%s: %s", b->kernel_name, why);
out:
    free(f);
    return r;
}

static int load_file(struct boot *b, struct image_file *f)
{
    int r = image_load(f, b->err, b->err_size);

    if (!r)
        r = load_kernel_image(b, f->data, f->size);
    image_close(f);
    return r;
}

int load_kernel(struct boot *b, const char *path)
{
    struct image_file f;
    int r = image_file_open(&f, "kernel", path, b->ram, b->err, b->err_size);

    return r ? r : load_file(b, &f);
}

int load_kernel_fd(struct boot *b, const char *name, int fd)
{
    struct image_file f;
    int r = image_file_open_fd(&f, "kernel", name, fd, b->ram, b->err, b->err_size);

    return r ? r : load_file(b, &f);
}
