/* SPDX-License-Identifier: Apache-2.0 */
/* The agent as it is put into a guest: a static program, part of this one. */
#ifndef TRIVISOR_AGENT_AGENT_H
#define TRIVISOR_AGENT_AGENT_H

#include "base/types.h"

extern const u8 agent_program[], agent_program_end[];

#endif
