/* SPDX-License-Identifier: Apache-2.0 */
/* Small virtio devices: random numbers, balloon, console and ports. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "backend/char/char.h"
#include "backend/char/console.h"
#include "board/pc_priv.h"
#include "dev/pci/pci.h"
#include "dev/virtio/balloon.h"
#include "dev/virtio/console.h"
#include "dev/virtio/rng.h"

_Static_assert(PC_PORTS_MAX == VIRTIO_CONSOLE_PORTS - 1, "port 0 is the console's");

/* Where the next device goes. */
static u8 next_devfn(const struct pc *pc)
{
    return PCI_DEVFN(pc->next_slot, 0);
}

/* d: the device that was put there, or NULL: that did not work. */
static int placed(struct pc *pc, const struct device *d, const char *name)
{
    if (!d) {
        snprintf(pc->err, pc->err_size, "cannot create %s: no memory or no slot for it", name);
        return -ENOMEM;
    }
    pc->next_slot++;
    return 0;
}

static int create_rng(struct pc *pc)
{
    if (strcmp(pc->cfg->rng, "on"))
        return 0;
    return placed(pc, virtio_rng_create(&pc->vm, pc->pci, next_devfn(pc), "rng0"), "rng0");
}

static int create_balloon(struct pc *pc)
{
    const char *text = pc->cfg->balloon;
    u64 target = 0;

    if (!strcmp(text, "off"))
        return 0;
    if (strcmp(text, "on"))
        config_parse_memory(text, &target); /* as it was checked */
    if (target >= pc->cfg->memory) {
        snprintf(pc->err, pc->err_size, "--balloon %s: the guest has no more memory than that",
                 text);
        return -EINVAL;
    }
    return placed(pc, virtio_balloon_create(&pc->vm, pc->pci, next_devfn(pc), "balloon0", target),
                  "balloon0");
}

/* The port an option describes, NAME=WHERE as it has checked. */
static int open_port(struct pc *pc, const char *spec, struct virtio_console_config *c)
{
    const char *where = strchr(spec, '=') + 1;
    char *name = pc->port_name[pc->nports];

    if (pc->nports == PC_PORTS_MAX) {
        snprintf(pc->err, pc->err_size, "--port: more than %d ports", PC_PORTS_MAX);
        return -EINVAL;
    }
    snprintf(name, sizeof(pc->port_name[0]), "%.*s", (int)(where - spec - 1), spec);
    for (unsigned i = 0; i < pc->nports; i++)
        if (!strcmp(pc->port_name[i], name)) {
            snprintf(pc->err, pc->err_size, "--port: %s is there twice", name);
            return -EINVAL;
        }
    c->port[pc->nports].name = name;
    c->port[pc->nports].chr = pc->port[pc->nports] =
        char_port_open(&pc->vm, where, pc->err, pc->err_size);
    if (!pc->port[pc->nports])
        return -EINVAL;
    c->nports = ++pc->nports;
    return 0;
}

static int create_console(struct pc *pc)
{
    const struct config *cfg = pc->cfg;
    struct virtio_console_config c = {.name = "console0"};
    int r = 0;

    if (!cfg->virtio_console && !cfg->port.n)
        return 0;
    if (cfg->virtio_console && !strcmp(cfg->virtio_console, "stdio") &&
        !strcmp(cfg->serial, "stdio")) {
        snprintf(pc->err, pc->err_size,
                 "--virtio-console stdio: the serial port has that already (--serial null)");
        return -EINVAL;
    }
    for (unsigned i = 0; i < cfg->port.n && !r; i++)
        r = open_port(pc, cfg->port.item[i], &c);
    if (r)
        return r;
    if (cfg->virtio_console) {
        struct console_config hvc = pc_console_config(pc, cfg->virtio_console);

        pc->hvc = console_open(&pc->vm, &hvc, pc->err, pc->err_size);
        if (!pc->hvc)
            return -EINVAL;
        c.console = pc->hvc;
    }
    return placed(pc, virtio_console_create(&pc->vm, pc->pci, next_devfn(pc), &c), c.name);
}

int pc_create_virtio(struct pc *pc)
{
    int r = create_rng(pc);

    if (!r)
        r = create_balloon(pc);
    return r ? r : create_console(pc);
}

void pc_close_virtio(struct pc *pc)
{
    if (pc->hvc)
        pc->hvc->close(pc->hvc);
    pc->hvc = NULL;
    while (pc->nports) {
        struct chardev *c = pc->port[--pc->nports];

        c->close(c);
    }
}
