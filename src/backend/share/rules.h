/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TRIVISOR_BACKEND_SHARE_RULES_H
#define TRIVISOR_BACKEND_SHARE_RULES_H

#include "core/sandbox.h"

/* System calls of the file server's process; ends with SANDBOX_END. */
extern const struct sandbox_rule share_rules[];

#endif
