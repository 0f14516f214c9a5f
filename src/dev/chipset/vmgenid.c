/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/chipset/vmgenid.h"

#include "dev/chipset/acpi_pm.h"

struct vmgenid {
    struct device dev;
    struct vm *vm;
    struct vmgenid_config cfg;
};

static int draw(struct vmgenid *g)
{
    u8 id[VMGENID_SIZE];
    int err = host_random(id, sizeof(id));

    return err ? err : vm_dma_write(g->vm, gpa(g->cfg.at), id, sizeof(id));
}

int vmgenid_renew(struct device *d)
{
    struct vmgenid *g = container_of(d, struct vmgenid, dev);
    int err = draw(g);

    if (!err)
        acpi_pm_raise_gpe(g->cfg.pm, VMGENID_GPE);
    return err;
}

static void destroy(struct device *d)
{
    host_free(container_of(d, struct vmgenid, dev));
}

static const struct device_ops ops = {.name = "vmgenid", .destroy = destroy};

struct device *vmgenid_create(struct vm *vm, const struct vmgenid_config *cfg)
{
    struct vmgenid *g = host_zalloc(sizeof(*g));

    if (!g)
        return NULL;
    g->dev.ops = &ops;
    g->vm = vm;
    g->cfg = *cfg;
    if (draw(g)) {
        host_free(g);
        return NULL;
    }
    vm_add_device(vm, &g->dev);
    return &g->dev;
}
