/* SPDX-License-Identifier: Apache-2.0 */
/* A driver's machine is saved, and the driver goes on in another one. */
#ifndef TRIVISOR_TESTS_UNIT_DEV_VIRTIO_MOVE_H
#define TRIVISOR_TESTS_UNIT_DEV_VIRTIO_MOVE_H

#include "dev/virtio_driver.h"
#include "state_file.h"

/* Saves *b's devices as they are, destroys it and loads them into the board `create` makes, which
 * becomes *b. d goes on there. Nothing is settled. */
void vd_move(struct vd_board **b, struct vdriver *d, struct vd_board *(*create)(void));

#endif
