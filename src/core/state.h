/* SPDX-License-Identifier: Apache-2.0 */
/* The state of vCPUs in streams (device.h says when). */
#ifndef TRIVISOR_CORE_STATE_H
#define TRIVISOR_CORE_STATE_H

#include "core/stream.h"
#include "core/vm.h"

/*
 * Saves v, whose state the engine has given in *s (changed here), and what waits for it. The VM is
 * paused.
 */
void vcpu_save(struct vcpu *v, struct x86_vcpu_state *s, struct stream *out);
/* Whether what vcpu_save has written is what vcpu_load takes, all of it: what an engine says of its
 * vCPU need not be. */
bool vcpu_can_load(const struct vcpu *v, struct stream *in);
/* The reverse, for v of a paused VM that has not run, after its local APIC: *s is what the engine
 * is to be given. 0 or -EINVAL. */
int vcpu_load(struct vcpu *v, struct x86_vcpu_state *s, struct stream *in);

#endif
