/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/virtio_move.h"

#include <string.h>

#include "test.h"

void vd_move(struct vd_board **b, struct vdriver *d, struct vd_board *(*create)(void))
{
    const struct state_file *f = state_save((*b)->m);
    struct vd_board was = **b, *now;

    vd_board_free(*b);
    now = create();
    now->next_alloc = was.next_alloc;
    now->assigned = was.assigned;
    /* The interrupt controllers have states of their own. */
    memcpy(now->msi, was.msi, sizeof(now->msi));
    memcpy(now->lines, was.lines, sizeof(now->lines));
    assert_int_equal(state_load(now->m, f), 0);
    *b = d->b = now;
}
