/* SPDX-License-Identifier: Apache-2.0 */
/* What boot loaders are configured to start, out of the text of their configuration. */
#ifndef TRIVISOR_BACKEND_BOOTDISK_LOADER_H
#define TRIVISOR_BACKEND_BOOTDISK_LOADER_H

#include "backend/bootdisk/bootdisk.h"

#define LOADER_INITRDS_MAX 4

struct loader_entry {
    char kernel[BOOTDISK_PATH_MAX];
    char initrd[LOADER_INITRDS_MAX][BOOTDISK_PATH_MAX];
    unsigned n_initrd;
    char args[BOOTDISK_ARGS_MAX];
};

/*
 * The first entry of a grub.cfg that starts a Linux: its linux and initrd lines. Nothing is
 * evaluated: words with variables are left out, a kernel named by one is passed over. false: none.
 */
bool loader_grub(const char *text, struct loader_entry *out);

/* A Boot Loader Specification entry (uapi-group.org, type #1). false: it starts no Linux. */
bool loader_bls(const char *text, struct loader_entry *out);

/* Whether args hold a word that begins with prefix, such as "root=". */
bool loader_has(const char *args, const char *prefix);

#endif
