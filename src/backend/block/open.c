/* SPDX-License-Identifier: Apache-2.0 */
/* Which format an image has, and opening it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "backend/block/image.h"

#define PROBE_SIZE 512

/* How images with metadata begin. A raw disk that begins so is refused unless format= says raw:
 * either it is such an image, or its guest wants it taken for one. */
static const struct magic {
    const char *name;
    unsigned offset, size;
    const char *bytes;
} magics[] = {
    {"qcow2", 0, 4, "QFI\xfb"},
    {"QED", 0, 4, "QED\0"},
    {"VMDK", 0, 4, "KDMV"},
    {"VMDK", 0, 4, "COWD"},
    {"VMDK", 0, 21, "# Disk DescriptorFile"},
    {"VDI", 64, 4, "\x7f\x10\xda\xbe"},
    {"VHDX", 0, 8, "vhdxfile"},
    {"VHD", 0, 8, "conectix"},
    {"Parallels", 0, 16, "WithoutFreeSpace"},
    {"Parallels", 0, 16, "WithouFreSpacExt"},
    {"LUKS", 0, 6, "LUKS\xba\xbe"},
    {"Bochs", 0, 22, "Bochs Virtual HD Image"},
    {"cloop", 0, 24, "#!/bin/sh\n#V2.0 Format\nm"},
};

static const char *probe(struct block_file *f)
{
    u8 head[PROBE_SIZE];

    if (block_file_read(f, head, sizeof(head), 0))
        return NULL;
    for (size_t i = 0; i < ARRAY_SIZE(magics); i++)
        if (!memcmp(head + magics[i].offset, magics[i].bytes, magics[i].size))
            return magics[i].name;
    return NULL;
}

/* The rule of block_open; BLOCK_FORMAT_NONE: refused. */
static enum block_format decide(struct block_file *f, const struct image_how *how, char *err,
                                size_t err_size)
{
    size_t n = strlen(f->path);
    bool named_qcow2 = n > 6 && !strcmp(f->path + n - 6, ".qcow2");
    const char *found = probe(f);
    bool is_qcow2 = found && !strcmp(found, "qcow2");

    if (named_qcow2 && is_qcow2)
        return BLOCK_FORMAT_QCOW2;
    if (named_qcow2)
        snprintf(err, err_size,
                 "disk %s: it is named .qcow2 but is no qcow2 image; format=raw takes it as raw",
                 f->path);
    else if (is_qcow2 && how->overlay)
        snprintf(err, err_size,
                 "disk %s: its backing file %s begins like qcow2 and the image does not tell its "
                 "format (qemu-img rebase -u -b BACKING -F FORMAT IMAGE does)",
                 how->overlay->file->path, f->path);
    else if (is_qcow2)
        snprintf(err, err_size, "disk %s: it begins like qcow2: say format=qcow2 or format=raw",
                 f->path);
    else if (found)
        snprintf(err, err_size,
                 "disk %s: it begins like a %s image, which is not built: convert it with "
                 "qemu-img, or say format=raw",
                 f->path, found);
    else
        return BLOCK_FORMAT_RAW;
    return BLOCK_FORMAT_NONE;
}

struct blockdev *image_open(const char *path, enum block_format format, struct image_how *how,
                            char *err, size_t err_size)
{
    struct block_file f;
    struct stat st;

    if (how->depth >= IMAGE_CHAIN_MAX) {
        snprintf(err, err_size, "disk %s: more than %d images in a chain", path, IMAGE_CHAIN_MAX);
        return NULL;
    }
    for (const struct image_how *o = how->overlay; o && !stat(path, &st); o = o->overlay)
        if (o->file->dev == st.st_dev && o->file->ino == st.st_ino) {
            snprintf(err, err_size, "disk %s: the chain of backing files comes back to it", path);
            return NULL;
        }
    if (block_file_open(&f, path, how->readonly, err, err_size))
        return NULL;
    f.unsafe = how->unsafe;
    if (format == BLOCK_FORMAT_NONE)
        format = decide(&f, how, err, err_size);
    how->file = &f;
    switch (format) {
    case BLOCK_FORMAT_RAW:
        return raw_open(&f, how, err, err_size);
    case BLOCK_FORMAT_QCOW2:
        return qcow2_open(&f, how, err, err_size);
    default:
        block_file_close(&f);
        return NULL;
    }
}

struct blockdev *block_open(const struct block_spec *spec, char *err, size_t err_size)
{
    struct image_how how = {
        .readonly = spec->readonly, .unsafe = spec->unsafe, .no_discard = spec->no_discard};

    return image_open(spec->path, spec->format, &how, err, err_size);
}
