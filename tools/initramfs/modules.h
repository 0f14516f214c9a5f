/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel modules of the guest image, described by /lib/modules/index (tools/mkinitramfs.py). */
#ifndef TRIVISOR_INITRAMFS_MODULES_H
#define TRIVISOR_INITRAMFS_MODULES_H

/* Loads the drivers of the devices that are there, then the modules of a list "a,b" (may be NULL).
 * Nothing happens in an image without modules. */
void modules_coldplug(const char *list);

/* modprobe [-OPTIONS] NAME|ALIAS ...: for people, and for the kernel when a file system or a
 * protocol is asked for. Its exit status. */
int modules_modprobe(int argc, char **argv);

#endif
