/* SPDX-License-Identifier: Apache-2.0 */
/* Comma-separated lists, as the options of disks and networks are written: a doubled comma stands
 * for one comma within an item. */
#ifndef TRIVISOR_BASE_COMMAS_H
#define TRIVISOR_BASE_COMMAS_H

#include "base/types.h"

#define COMMAS_END (-1)
#define COMMAS_TOO_LONG (-2)

/*
 * Copies the next item of *text into buf, NUL-terminated, and sets *text behind it: to the next
 * item or, after the last one, to NULL. Its length; COMMAS_END: *text was NULL; COMMAS_TOO_LONG: it
 * does not fit size.
 */
int commas_next(const char **text, char *buf, size_t size);

/*
 * Splits an item KEY=VALUE in place: the '=' becomes a NUL. The value, or NULL when there is no
 * '='.
 */
char *commas_value(char *item);

#endif
