/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Engine kvm: guest code runs on the CPU itself, by VT-x or AMD-V through Linux' /dev/kvm
 * (Linux Documentation/virt/kvm/api.rst). The board's own interrupt controllers and MSRs stay ours;
 * what KVM cannot finish, the interpreter does.
 */
#ifndef TRIVISOR_ENGINE_KVM_H
#define TRIVISOR_ENGINE_KVM_H

#include "core/engine.h"

extern const struct engine_ops kvm_engine_ops;

#endif
