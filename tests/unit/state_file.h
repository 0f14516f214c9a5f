/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a snapshot does, for tests of devices: the states of a fake machine's devices are taken, the
 * machine goes away, and another one made in the same way gets them.
 */
#ifndef TRIVISOR_TESTS_UNIT_STATE_FILE_H
#define TRIVISOR_TESTS_UNIT_STATE_FILE_H

#include "fake_host.h"

#define STATE_DEVICES_MAX 32

struct state_file {
    u64 clock_ns, tsc[VM_VCPUS_MAX]; /* the guest's, which go on from there */
    u8 ram[FAKE_RAM_SIZE];
    unsigned n;
    struct {
        const char *name;
        unsigned instance;
        u8 bytes[8192];
        size_t len;
    } dev[STATE_DEVICES_MAX];
};

/* Pauses the machine, drains and saves its clock, memory and devices. One file at a time. */
struct state_file *state_save(struct machine *m);
/* Into a machine that was just made; it is paused and resumed. 0, or what a device said. */
int state_load(struct machine *m, const struct state_file *f);
/* One device of it: loads its state from `len` bytes in place of what was saved. */
int state_load_device(struct machine *m, const char *name, const u8 *bytes, size_t len);
/* Checks that no proper beginning of a device's state is taken, nor one with another version. The
 * machine is of no use afterwards. */
void state_refuses_pieces(struct machine *m, const struct state_file *f, const char *name);
/* The saved bytes of a device; *len is their number. */
u8 *state_bytes(struct state_file *f, const char *name, size_t *len);

#endif
