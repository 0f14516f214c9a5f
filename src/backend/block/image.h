/* SPDX-License-Identifier: Apache-2.0 */
/* Between the file that opens images and the formats. */
#ifndef TRIVISOR_BACKEND_BLOCK_IMAGE_H
#define TRIVISOR_BACKEND_BLOCK_IMAGE_H

#include "backend/block/block.h"
#include "backend/block/file.h"

/* Images in a chain of backing files; more is a mistake or an attack. */
#define IMAGE_CHAIN_MAX 32

/* How an image is to be opened, and the images that were opened on the way to it. */
struct image_how {
    bool readonly, unsafe, no_discard;
    const struct image_how *overlay; /* the image this one is the backing file of; or NULL */
    const struct block_file *file;   /* this image's */
    unsigned depth;
};

/* Opens path as format (BLOCK_FORMAT_NONE: the rule of block_open). *how is filled in with the
 * file. */
struct blockdev *image_open(const char *path, enum block_format format, struct image_how *how,
                            char *err, size_t err_size);

/* The formats. They take *f over; on failure they close it: NULL and one line in err. */
struct blockdev *raw_open(struct block_file *f, const struct image_how *how, char *err,
                          size_t err_size);
struct blockdev *qcow2_open(struct block_file *f, struct image_how *how, char *err,
                            size_t err_size);

#endif
