/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Engine bt: full virtualization in software. Guest code is translated x86 to x86 and runs in the
 * vCPU's own thread; memory goes through an inline soft TLB. What the translator does not do, the
 * interpreter does.
 */
#ifndef TRIVISOR_ENGINE_BT_H
#define TRIVISOR_ENGINE_BT_H

#include "core/engine.h"

extern const struct engine_ops bt_engine_ops;

#endif
