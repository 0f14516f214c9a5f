/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TRIVISOR_BOARD_SAVED_PRIV_H
#define TRIVISOR_BOARD_SAVED_PRIV_H

#include "board/saved.h"
#include "core/host.h"
#include "snapshot/reader.h"

struct pc_saved {
    struct snapshot *file;
    char *path;
    struct config_line *line;
    size_t nlines;
    struct host_thread *verifier; /* NULL: all is verified */
    u32 stop;                     /* atomic: the verifier is to end */
};

#endif
