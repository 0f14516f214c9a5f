/* SPDX-License-Identifier: Apache-2.0 */
/* What the program sets up of the host layer before anything else. */
#ifndef TRIVISOR_HOST_INIT_H
#define TRIVISOR_HOST_INIT_H

#include "base/log.h"

/* Messages up to level go to stderr, one line each; failed CHECKs and fatal signals are reported
 * there and run the hooks of host_at_end. Call once, from the main thread. */
void host_init(enum log_level level);

#endif
