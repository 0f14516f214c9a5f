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

/* The loop would end at IMAGE_CHAIN_MAX; this says what is wrong. */
static int refuse_loop(const char *path, const struct image_how *how, dev_t dev, ino_t ino,
                       char *err, size_t err_size)
{
    for (const struct image_how *o = how->overlay; o; o = o->overlay)
        if (o->file->dev == dev && o->file->ino == ino) {
            snprintf(err, err_size, "disk %s: the chain of backing files comes back to it", path);
            return -EINVAL;
        }
    return 0;
}

static int open_file(struct block_file *f, const char *path, struct image_how *how, char *err,
                     size_t err_size)
{
    struct block_chain *given = how->given;
    struct stat st;
    int fd;

    if (!given) {
        /* Before it is locked against itself. */
        if (!stat(path, &st) && refuse_loop(path, how, st.st_dev, st.st_ino, err, err_size))
            return -EINVAL;
        return block_file_open(f, path, how->readonly, err, err_size);
    }
    if (how->depth >= given->n) {
        snprintf(err, err_size, "disk %s: its descriptor did not come with the request", path);
        return -EINVAL;
    }
    fd = given->fd[how->depth];
    given->fd[how->depth] = -1;
    return block_file_adopt(f, fd, path, how->readonly, err, err_size);
}

int image_open_file(struct block_file *f, const char *path, enum block_format *format,
                    struct image_how *how, char *err, size_t err_size)
{
    if (how->depth >= IMAGE_CHAIN_MAX) {
        snprintf(err, err_size, "disk %s: more than %d images in a chain", path, IMAGE_CHAIN_MAX);
        return -EINVAL;
    }
    if (open_file(f, path, how, err, err_size))
        return -EINVAL;
    f->unsafe = how->unsafe;
    if (*format == BLOCK_FORMAT_NONE)
        *format = decide(f, how, err, err_size);
    if (*format != BLOCK_FORMAT_NONE && !refuse_loop(path, how, f->dev, f->ino, err, err_size)) {
        how->file = f;
        return 0;
    }
    block_file_close(f);
    return -EINVAL;
}

struct blockdev *image_open(const char *path, enum block_format format, struct image_how *how,
                            char *err, size_t err_size)
{
    struct block_file f;

    if (image_open_file(&f, path, &format, how, err, err_size))
        return NULL;
    return format == BLOCK_FORMAT_RAW ? raw_open(&f, how, err, err_size)
                                      : qcow2_open(&f, how, err, err_size);
}

struct blockdev *block_open(const struct block_spec *spec, char *err, size_t err_size)
{
    struct image_how how = {
        .readonly = spec->readonly, .unsafe = spec->unsafe, .no_discard = spec->no_discard};

    return image_open(spec->path, spec->format, &how, err, err_size);
}
