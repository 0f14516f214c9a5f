/* SPDX-License-Identifier: Apache-2.0 */
/* What the program sets up of the host layer before anything else. */
#ifndef TRIVISOR_HOST_INIT_H
#define TRIVISOR_HOST_INIT_H

#include "base/log.h"
#include "base/types.h"

/* Messages up to level go to stderr, one line each; failed CHECKs and fatal signals are reported
 * there and run the hooks of host_at_end. Call once, from the main thread. */
void host_init(enum log_level level);

/* The first reading of the clocks, from which the TSC's frequency is measured: part of host_init.
 */
void host_clock_begin(void);

/* A line of text from a process that is less trusted: cut, made printable, on stderr. */
void host_print_line(const char *text, size_t n);

/* Opens /dev/null in place of standard input, output or error where the caller left one closed: the
 * next file opened would take its number, and be read or printed to. For reading only, so that what
 * is printed there is an error, as it is without us. First thing in the program. */
void host_fill_standard_fds(void);

#endif
