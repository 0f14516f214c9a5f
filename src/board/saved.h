/* SPDX-License-Identifier: Apache-2.0 */
/* A saved machine, before it is one again. */
#ifndef TRIVISOR_BOARD_SAVED_H
#define TRIVISOR_BOARD_SAVED_H

#include "config/config.h"

struct pc_saved;

/* NULL with one line in err. */
struct pc_saved *pc_saved_open(const char *path, char *err, size_t err_size);
void pc_saved_close(struct pc_saved *s); /* NULL: nothing */

/* The options it was saved with; *n of them, which belong to s. */
const struct config_line *pc_saved_options(const struct pc_saved *s, size_t *n);

#endif
