/* SPDX-License-Identifier: Apache-2.0 */
#include "board/pc_plug.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/net/net.h"
#include "base/log.h"
#include "board/pc_priv.h"
#include "board/pc_save.h"
#include "board/saved_priv.h"
#include "dev/pci/host.h"
#include "dev/pci/hotplug.h"

_Static_assert(PCI_HOTPLUG_GPE == 1 && LAYOUT_HOTPLUG_PORT == 0x610 && LAYOUT_HOTPLUG_FIRST == 24 &&
                   LAYOUT_HOTPLUG_SLOTS == 8 && LAYOUT_HOTPLUG_FIRST + LAYOUT_HOTPLUG_SLOTS <= 32,
               "\\_GPE._E01, HPOR and the slots in the DSDT");

/* Instances of the same device are told apart by it where they are saved: those that were there at
 * the start count from 0. */
#define INSTANCE_BASE 100

/* What mac= takes in a network's options. */
#define MAC_OPTION 22

static unsigned slot_of(const struct pc *pc, const struct pc_plug *p)
{
    return LAYOUT_HOTPLUG_FIRST + (unsigned)(p - pc->plug);
}

static int fail(const struct control_call *call, int r, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static int fail(const struct control_call *call, int r, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(call->err, call->err_size, fmt, ap);
    va_end(ap);
    return r;
}

/* --- what is there --- */

unsigned pc_plug_count(const struct pc *pc, enum pc_plug_kind kind)
{
    unsigned n = 0;

    for (unsigned i = 0; i < PC_PLUG_SLOTS; i++)
        n += pc->plug[i].kind == kind;
    return n;
}

struct pc_plug *pc_plug_nth(struct pc *pc, enum pc_plug_kind kind, unsigned nth)
{
    for (struct pc_plug *p = pc->plug; p < pc->plug + PC_PLUG_SLOTS; p++)
        if (p->kind == kind && !nth--)
            return p;
    return NULL;
}

static struct pc_plug *find(struct pc *pc, const char *id)
{
    for (struct pc_plug *p = pc->plug; p < pc->plug + PC_PLUG_SLOTS; p++)
        if (p->kind != PC_PLUG_NONE && !strcmp(p->id, id))
            return p;
    return NULL;
}

/* Of the devices that were there at the start. */
static bool built_in(const struct pc *pc, const char *id)
{
    char name[16];

    for (unsigned i = 0; i < pc->ndisks + pc->nnets; i++) {
        bool disk = i < pc->ndisks;

        snprintf(name, sizeof(name), "%s%u", disk ? "disk" : "net", disk ? i : i - pc->ndisks);
        if (!strcmp(name, id))
            return true;
    }
    return false;
}

static void make_id(struct pc *pc, const char *prefix, char *id, size_t size)
{
    unsigned n = 0;

    do
        snprintf(id, size, "%s%u", prefix, n++);
    while (built_in(pc, id) || find(pc, id));
}

/* The next empty slot behind the one that was filled last: should the guest be slow to eject what
 * is gone already, it does not eject what came after it. */
static struct pc_plug *free_slot(struct pc *pc)
{
    for (unsigned i = 1; i <= PC_PLUG_SLOTS; i++) {
        struct pc_plug *p = &pc->plug[(pc->plugged_last + i) % PC_PLUG_SLOTS];

        if (p->kind == PC_PLUG_NONE && pci_host_is_free(pc->pci, PCI_DEVFN(slot_of(pc, p), 0)))
            return p;
    }
    return NULL;
}

/* --- devices --- */

/* Makes the device of p, of which all else is there. */
static int create_device(struct pc *pc, struct pc_plug *p)
{
    u8 devfn = PCI_DEVFN(slot_of(pc, p), 0);

    p->dev = p->kind == PC_PLUG_DISK ? pc_create_disk(pc, p->disk, p->id, p->text, devfn)
                                     : pc_create_net(pc, p->net, p->id, p->mac, devfn);
    if (!p->dev)
        return -ENOMEM;
    p->dev->instance = INSTANCE_BASE + slot_of(pc, p);
    return 0;
}

static void empty(struct pc_plug *p)
{
    if (p->disk)
        p->disk->ops->close(p->disk);
    if (p->net)
        p->net->ops->close(p->net);
    free(p->text);
    *p = (struct pc_plug){.kind = PC_PLUG_NONE};
}

/* Event loop: the guest has let go of it. */
static void ejected(void *opaque, unsigned slot)
{
    struct pc *pc = opaque;
    struct pc_plug *p = &pc->plug[slot - LAYOUT_HOTPLUG_FIRST];

    log_info("%s: the guest has ejected it%s", p->id, p->asked ? "" : ", without being asked");
    vm_remove_device(&pc->vm, p->dev);
    empty(p);
}

int pc_plug_create(struct pc *pc)
{
    struct pci_hotplug_config cfg = {
        .base = LAYOUT_HOTPLUG_PORT, .pm = pc->pm, .ejected = ejected, .opaque = pc};

    pc->plugged_last = PC_PLUG_SLOTS - 1;
    pc->hotplug = pci_hotplug_create(&pc->vm, &cfg);
    return pc->hotplug ? 0 : -ENOMEM;
}

void pc_plug_close(struct pc *pc)
{
    for (unsigned i = 0; i < PC_PLUG_SLOTS; i++)
        empty(&pc->plug[i]);
}

/* --- requests --- */

/* Of p all but the device is there. Makes it, and tells the guest. */
static int plug(struct pc *pc, struct pc_plug *p, const struct control_call *call)
{
    bool listening;

    if (!p->text || create_device(pc, p)) {
        fail(call, 0, "cannot create %s: no memory or no threads for it", p->id);
        empty(p);
        return -ENOMEM;
    }
    pc->plugged_last = (unsigned)(p - pc->plug);
    vm_lock(&pc->vm);
    listening = pci_hotplug_insert(pc->hotplug, slot_of(pc, p), p->dev, true);
    vm_unlock(&pc->vm);
    log_info("%s: plugged into slot %u", p->id, slot_of(pc, p));
    json_object_set_new(call->reply, "device", json_string(p->id));
    json_object_set_new(call->reply, "slot", json_integer(slot_of(pc, p)));
    json_object_set_new(call->reply, "listening", json_boolean(listening));
    return 0;
}

/* A slot for one more; NULL: there is none. */
static struct pc_plug *room(struct pc *pc, unsigned n, unsigned max, const char *what,
                            const struct control_call *call)
{
    struct pc_plug *p = n < max ? free_slot(pc) : NULL;

    if (n >= max)
        fail(call, 0, "the machine has %u %s already: there are no more", n, what);
    else if (!p)
        fail(call, 0, "all %d slots for what comes while the machine runs are in use",
             PC_PLUG_SLOTS);
    return p;
}

static struct block_chain take_chain(struct control_fds *fds)
{
    struct block_chain c = {.n = fds->n};

    _Static_assert(CONTROL_FDS_MAX <= BLOCK_CHAIN_MAX, "");
    memcpy(c.fd, fds->fd, fds->n * sizeof(c.fd[0]));
    fds->n = 0;
    return c;
}

int pc_plug_disk(struct pc *pc, const char *text, const struct control_call *call)
{
    struct block_chain chain;
    struct block_spec spec;
    struct pc_plug *p =
        room(pc, pc->ndisks + pc_plug_count(pc, PC_PLUG_DISK), CONFIG_LIST_MAX, "disks", call);

    if (!p)
        return -ENOSPC;
    if (block_spec_parse(text, &spec, call->err, call->err_size))
        return -EINVAL;
    if (spec.path[0] != '/')
        return fail(call, -EINVAL, "disk %s: its path does not begin at the root", spec.path);
    if (spec.id[0] && (built_in(pc, spec.id) || find(pc, spec.id)))
        return fail(call, -EEXIST, "disk %s: there is a device '%s' already", spec.path, spec.id);
    chain = take_chain(call->fds);
    p->disk = block_adopt(&spec, &chain, call->err, call->err_size);
    block_chain_close(&chain);
    if (!p->disk)
        return -EINVAL;
    p->text = strdup(text);
    if (spec.id[0])
        snprintf(p->id, sizeof(p->id), "%s", spec.id);
    else
        make_id(pc, "disk", p->id, sizeof(p->id));
    p->kind = PC_PLUG_DISK;
    return plug(pc, p, call);
}

static struct net_fds take_net(struct control_fds *fds)
{
    struct net_fds f = {.n = 0};

    while (f.n < fds->n && f.n < NET_QUEUES_MAX) {
        f.fd[f.n] = fds->fd[f.n];
        fds->fd[f.n++] = -1;
    }
    return f;
}

int pc_plug_net(struct pc *pc, const char *text, const struct control_call *call)
{
    struct pc_plug *p =
        room(pc, pc->nnets + pc_plug_count(pc, PC_PLUG_NET), PC_NETS_MAX, "networks", call);
    struct net_request r = {.spec = text};
    char full[NET_SPEC_MAX];
    struct net_fds f;

    if (!p)
        return -ENOSPC;
    if (strlen(text) >= sizeof(full) - MAC_OPTION ||
        pc->net_options >= CONFIG_LIST_MAX - PC_NETS_MAX)
        return fail(call, -EINVAL, "--net: too long, or given too often");
    make_id(pc, "net", p->id, sizeof(p->id));
    r.index = (unsigned)atoi(p->id + 3);
    f = take_net(call->fds);
    p->net = net_adopt(&r, &f, p->mac, call->err, call->err_size);
    net_close(&f);
    if (!p->net)
        return -EINVAL;
    /* The guest knows its interfaces by it, also when it goes on without those before this one. */
    strcpy(full, text);
    if (!strstr(full, ",mac="))
        net_add_mac(full, p->mac);
    p->text = strdup(full);
    p->kind = PC_PLUG_NET;
    return plug(pc, p, call);
}

int pc_unplug(struct pc *pc, const char *id, const struct control_call *call)
{
    struct pc_plug *p = find(pc, id);
    bool listening;

    if (!p && built_in(pc, id))
        return fail(call, -EBUSY, "%s was there when the machine started, and stays", id);
    if (!p)
        return fail(call, -ENOENT, "there is no device '%.64s'", id);
    if (__atomic_load_n(&pc->vm.pauses, __ATOMIC_SEQ_CST))
        return fail(call, -EBUSY,
                    "the machine is paused: it cannot let go of %s before it is resumed", id);
    p->asked = true;
    vm_lock(&pc->vm);
    listening = pci_hotplug_ask(pc->hotplug, slot_of(pc, p));
    vm_unlock(&pc->vm);
    json_object_set_new(call->reply, "device", json_string(p->id));
    json_object_set_new(call->reply, "slot", json_integer(slot_of(pc, p)));
    json_object_set_new(call->reply, "listening", json_boolean(listening));
    return 0;
}

static void add(json_t *list, const char *kind, const char *id, const char *text, unsigned slot,
                const char *state)
{
    json_t *one = json_object();

    json_object_set_new(one, "device", json_string(id));
    json_object_set_new(one, "kind", json_string(kind));
    json_object_set_new(one, "slot", json_integer(slot));
    json_object_set_new(one, "state", json_string(state));
    json_object_set_new(one, "value", pc_control_text(text));
    json_array_append_new(list, one);
}

json_t *pc_plug_list(struct pc *pc)
{
    json_t *list = json_array();
    const char *text;
    char id[16];
    u8 slot;

    for (unsigned i = 0; i < pc->ndisks; i++) {
        text = pc_disk_text(pc, i, &slot);
        snprintf(id, sizeof(id), "disk%u", i);
        add(list, "disk", id, text, slot, "built in");
    }
    for (unsigned i = 0; i < pc->nnets; i++)
        add(list, "net", pc->net[i].name, pc->net[i].text, pc->net[i].slot, "built in");
    for (struct pc_plug *p = pc->plug; p < pc->plug + PC_PLUG_SLOTS; p++)
        if (p->kind != PC_PLUG_NONE)
            add(list, p->kind == PC_PLUG_DISK ? "disk" : "net", p->id, p->text, slot_of(pc, p),
                p->asked ? "asked back" : "plugged");
    return list;
}

/* --- saving and restoring --- */

void pc_plug_settle(struct pc *pc)
{
    pci_hotplug_settle(pc->hotplug);
}

void pc_plug_save(struct pc *pc, struct stream *out)
{
    stream_put_u16(out, SAVE_VERSION);
    for (struct pc_plug *p = pc->plug; p < pc->plug + PC_PLUG_SLOTS; p++) {
        stream_put_u8(out, (u8)p->kind);
        stream_put(out, p->id, sizeof(p->id));
    }
}

/* A device's name, padded with zeroes. */
static bool id_ok(const char *id, size_t size)
{
    size_t n = strnlen(id, size);

    for (size_t i = 0; i < n; i++)
        if (!(id[i] >= 'a' && id[i] <= 'z') && !(id[i] >= 'A' && id[i] <= 'Z') &&
            !(id[i] >= '0' && id[i] <= '9') && !strchr("-_.", id[i]))
            return false;
    for (size_t i = n; i < size; i++)
        if (id[i])
            return false;
    return n && n < size;
}

static bool load_list(struct pc *pc, struct stream *in)
{
    if (stream_get_u16(in) != SAVE_VERSION)
        return false;
    for (unsigned i = 0; i < PC_PLUG_SLOTS; i++) {
        char id[sizeof(pc->plug[i].id)];
        u8 kind = stream_get_u8(in);

        stream_get(in, id, sizeof(id));
        if (kind == PC_PLUG_NONE)
            continue;
        if (in->error || kind > PC_PLUG_NET || !id_ok(id, sizeof(id)) || find(pc, id))
            return false;
        memcpy(pc->plug[i].id, id, sizeof(id));
        pc->plug[i].kind = kind;
    }
    return !in->error && in->pos == in->cap;
}

int pc_plug_restore_list(struct pc *pc)
{
    struct stream in;

    if (!pc->ends.saved)
        return 0;
    if (snapshot_section(pc->ends.saved->file, SAVE_PLUGGED, 0, &in) && load_list(pc, &in))
        return 0;
    snprintf(pc->err, pc->err_size,
             "%s: what was plugged into the machine is none this version can use",
             pc->ends.saved->path);
    return -EINVAL;
}

int pc_plug_restore_disk(struct pc *pc, struct pc_plug *p, const char *text)
{
    struct block_spec spec;
    char err[400];

    if (!block_spec_parse(text, &spec, err, sizeof(err)))
        p->disk = block_open(&spec, err, sizeof(err));
    p->text = p->disk ? block_spec_from(text, pc->cwd) : NULL;
    if (p->text)
        return 0;
    snprintf(pc->err, pc->err_size, "-d: %s", p->disk ? "out of memory" : err);
    return -EINVAL;
}

int pc_plug_restore_net(struct pc *pc, struct pc_plug *p, const char *text, unsigned index)
{
    struct net_request r = {.spec = text, .index = index};
    char full[NET_SPEC_MAX];

    if (!strcmp(text, "none")) {
        snprintf(pc->err, pc->err_size,
                 "--net: the saved machine had more networks than are given again");
        return -EINVAL;
    }
    p->net = net_open(&r, p->mac, pc->err, pc->err_size);
    if (!p->net)
        return -EINVAL;
    snprintf(full, sizeof(full), "%s", text);
    if (!strstr(full, ",mac=") && strlen(full) + MAC_OPTION < NET_SPEC_MAX)
        net_add_mac(full, p->mac);
    p->text = strdup(full);
    if (p->text)
        return 0;
    snprintf(pc->err, pc->err_size, "out of memory");
    return -ENOMEM;
}

int pc_plug_restore_devices(struct pc *pc)
{
    for (struct pc_plug *p = pc->plug; p < pc->plug + PC_PLUG_SLOTS; p++) {
        if (p->kind == PC_PLUG_NONE)
            continue;
        if (built_in(pc, p->id) || create_device(pc, p)) {
            snprintf(pc->err, pc->err_size, "cannot create %s: no memory or no slot for it", p->id);
            return -ENOMEM;
        }
        pci_hotplug_insert(pc->hotplug, slot_of(pc, p), p->dev, false);
    }
    return 0;
}
